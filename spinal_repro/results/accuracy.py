"""The accuracy table of an experiment: published and measured values, one row per result."""

from collections.abc import Callable, Iterable
from typing import Any

from spinal_repro.paper.cells import Cell
from spinal_repro.records import statistics
from spinal_repro.results.outcomes import BEST_ON_TEST, ResultGroup
from spinal_repro.results.tables import PERCENT, SIGNED, Column, interval_columns
from spinal_repro.results.verdicts import MARGIN, RULES


def who(cell: Cell) -> dict[str, Any]:
    """The values of `CELL_COLUMNS`."""
    return {"cell": cell.name, **{c.key: getattr(cell, c.key) for c in CELL_COLUMNS[1:]}}


def identify(result: ResultGroup) -> dict[str, Any]:
    """Collect the values of `CELL_COLUMNS`, `PROTOCOL`, `DEVICE`, ``n`` and `MARKS`."""
    cell, runs = result.cell, result.runs
    return who(cell) | {
        "protocol": result.protocol if runs else None,
        "device": f"{runs[0].device} {runs[0].precision}" if runs else None,
        "n": result.n,
        "marks": "; ".join(map(str, result.differences)) if runs else cell.not_runnable,
    }


def row(result: ResultGroup) -> dict[str, Any]:
    """A result as a row of an accuracy table; unknown values are None."""
    cell, published, runs = result.cell, result.published, result.runs
    also = [f"{o.value:g} ({o.confidence})" for o in cell.published[1:] if o.value is not None]
    if cell.reference is not None and cell.reference.value is not None:
        also.append(f"state of the art {cell.reference.value:g}")
    found = identify(result) | {
        "published": published.value,
        "confidence": published.confidence or None,
        "also": "; ".join(also) or None,
        "published_rule": published.selection or None,
        "margin": None if published.value is None else str(result.margin),
        "verdict": (verdict := result.verdict),
    }
    if not runs:
        return found
    wanted = "?" if published.epochs is None else published.epochs
    epochs = [f"{count} of {wanted}" for count in sorted({run.epochs for run in runs})]
    other = result.alternative_metric
    by_other = result.verdict_by([run.value(other) for run in runs])
    numbers = {
        "epochs": "; ".join(epochs),
        "rule": result.reported_metric,
        "mean": result.mean,
        "sd": result.sd,
        "difference": result.difference,
        "selected": statistics.mean(run.selected for run in runs),
        "last": statistics.mean(run.last for run in runs),
        "sensitive": None if by_other == verdict else f"{other}: {by_other}",
    }
    return found | numbers | ends(result.interval)


def ends(interval: tuple[float, float] | None) -> dict[str, float]:
    """Values of the columns ``low`` and ``high``, if there is an interval."""
    return {} if interval is None else {"low": interval[0], "high": interval[1]}


def bounds(interval: tuple[float, float] | None, form: str = "+.2f") -> str:
    """``, 95 % interval -1.00 to +1.00``; empty without an interval."""
    return f", 95 % interval {interval[0]:{form}} to {interval[1]:{form}}" if interval else ""


def selection_rows(results: Iterable[ResultGroup]) -> list[dict[str, Any]]:
    """Compare epochs selected on the test set, on a validation part, and the last epoch.

    Only of results that read the test set after every epoch.
    """
    found = []
    for result in results:
        runs = result.runs
        highest = [run.best_on_test for run in runs if run.best_on_test is not None]
        if not runs or len(highest) < len(runs):
            continue
        on_test = runs[0].selected_on_test
        chosen = [run.last if on_test else run.selected for run in runs]
        gain = statistics.paired(chosen, highest)
        numbers = {
            "best_on_test": statistics.mean(highest),
            "by_validation": None if on_test else statistics.mean(chosen),
            "last": statistics.mean(run.last for run in runs),
            "gain": gain.mean,
        }
        found.append(identify(result) | numbers | ends(gain.interval))
    return found


def decimals(unit: str) -> int:
    """Digits after the point of numbers in percent or 1e-3."""
    return 2 if unit == "%" else 3


def number(unit: str, sign: str = "") -> Callable[[Any], str]:
    """Formatter of numbers of a unit."""
    return f"{{:{sign}.{decimals(unit)}f}}".format


CELL_COLUMNS = (
    Column("cell", "Cell", "to train it: spinal-train paper=CELL"),
    Column("dataset", "Data set"),
    Column("backbone", "Backbone"),
    Column("head", "Head"),
)
PROTOCOL = Column(
    "protocol",
    "Protocol",
    "paper: the test set selects the epoch and drives the learning-rate rule, as published; "
    "heldout: a validation part does, and the test set is read once",
)
DEVICE = Column("device", "Device", "device type and precision")
MARKS = Column(
    "marks", "Differences", "settings that differ from the cell's, or why there are no runs"
)
RUNS = "number of runs, which differ only in the seed"
SENSITIVE = "the verdict with the other choice of the epoch, where it differs"
METRIC = (
    "the number of ours that is compared: under protocol paper the one that the original reports, "
    "if known; else the test accuracy at the epoch selected on the validation split"
)
INTERVAL = (
    "lower end of Student's t interval of the mean over seeds; with fewer than 3 runs, or equal "
    "values, of Wilson's interval, which covers the finite test set but not the seeds"
)


def columns(unit: str) -> tuple[Column, ...]:
    """The columns of an accuracy table; its unit is ``%`` or ``1e-3``."""
    plain, signed = number(unit), number(unit, "+")
    what = "accuracies in percent" if unit == "%" else "MSE in 1e-3; lower is better"
    verdicts = "; ".join(f"{word}: {rule}" for word, rule in RULES.items())
    accuracies = (
        Column("selected", "Selected", "mean test accuracy at the selected epoch", plain),
        Column("last", "Last", "mean test accuracy after the last epoch", plain),
    )
    return (
        *CELL_COLUMNS,
        Column("published", "Paper", f"the published single value; {what}", plain),
        Column("confidence", "Confidence", "how the published value is known"),
        Column("also", "Also", "further published values, not compared, and the state of the art"),
        Column("published_rule", "Paper's rule", "how the original selected the epoch"),
        PROTOCOL,
        DEVICE,
        Column("epochs", "Epochs", "epochs run of epochs published"),
        Column("rule", "Metric", METRIC),
        Column("mean", "Ours", "mean of that number over runs", plain),
        Column("sd", "SD", "standard deviation over seeds (n - 1)", plain),
        Column("n", "n", RUNS),
        *interval_columns(INTERVAL, "upper end of that interval", plain),
        Column("difference", "Diff", "ours minus paper", signed),
        *(accuracies if unit == "%" else ()),
        Column("margin", "Margin", MARGIN),
        Column("verdict", "Verdict", verdicts),
        Column("sensitive", "Sensitivity", SENSITIVE),
        MARKS,
    )


ON_TEST = f"mean of the highest test accuracy of all epochs ({BEST_ON_TEST}), biased upwards"
BY_VALIDATION = "mean test accuracy at the epoch selected on the validation part"
GAIN = (
    "best on test minus by validation (minus last where there is no validation part), mean "
    "over runs: the optimism of selecting on the test set"
)
SELECTION = (
    *CELL_COLUMNS,
    PROTOCOL,
    DEVICE,
    Column("n", "n", RUNS),
    Column("best_on_test", "Best on test", ON_TEST, PERCENT),
    Column("by_validation", "By validation", BY_VALIDATION, PERCENT),
    Column("last", "Last", "mean test accuracy after the last epoch", PERCENT),
    Column("gain", "Gain", GAIN, SIGNED),
    *interval_columns("lower end of the t interval of Gain", "its upper end", SIGNED),
    MARKS,
)
