"""The accuracy table of an experiment: published beside measured, one row a result."""

from collections.abc import Sequence
from typing import Any

from spinal_repro.records import statistics
from spinal_repro.results.outcomes import BEST_ON_TEST, LOWEST, ResultGroup
from spinal_repro.results.tables import Column
from spinal_repro.results.verdicts import RULES, margin_rule


def row(result: ResultGroup) -> dict[str, Any]:
    """A result as a row of an accuracy table; what is not known is None."""
    cell, published, runs = result.cell, result.published, result.runs
    low, high = result.interval or (None, None)
    epochs = {run.epochs for run in runs}
    wanted = None if published is None else published.epochs
    shown = [f"{count} of {'?' if wanted is None else wanted}" for count in sorted(epochs)]
    is_accuracy = bool(runs) and result.reported_metric != LOWEST
    return {
        "cell": cell.name,
        "dataset": cell.dataset,
        "backbone": cell.backbone,
        "head": cell.head,
        "published": result.published_value,
        "confidence": None if published is None else published.confidence,
        "also": _also(result) or None,
        "published_rule": None if published is None else published.selection,
        "protocol": result.protocol if runs else None,
        "device": f"{runs[0].device} {runs[0].precision}" if runs else None,
        "epochs": "; ".join(shown) if runs else None,
        "rule": result.reported_metric if runs else None,
        "mean": result.mean,
        "sd": result.sd,
        "n": result.n,
        "low": low,
        "high": high,
        "difference": result.difference,
        "selected": _mean([run.selected for run in runs]) if is_accuracy else None,
        "last": _mean([run.last for run in runs]) if is_accuracy else None,
        "verdict": result.verdict,
        "marks": "; ".join(map(str, result.differences)) if runs else cell.not_runnable,
    }


def _also(result: ResultGroup) -> str:
    """Further published numbers of a cell, and the state of the art that it was held against."""
    cell = result.cell
    others = [f"{o.value:g} ({o.confidence})" for o in cell.published[1:] if o.value is not None]
    if cell.reference is not None and cell.reference.value is not None:
        others.append(f"state of the art {cell.reference.value:g}")
    return "; ".join(others)


def selection_row(result: ResultGroup) -> dict[str, Any] | None:
    """What picking an epoch by the test set, by a validation part, or not at all comes to.

    Returns:
        A row, or None where nothing was run or the test set was not read after every epoch.
    """
    runs = result.runs
    if not runs or result.reported_metric == LOWEST:
        return None
    on_test = runs[0].selected_on_test
    highest = [run.best_on_test for run in runs if run.best_on_test is not None]
    if len(highest) < len(runs):
        return None
    chosen = [run.last if on_test else run.selected for run in runs]
    gains = [best - other for best, other in zip(highest, chosen, strict=True)]
    low, high = statistics.mean_interval(gains) if len(gains) > 1 else (None, None)
    return {
        "cell": result.cell.name,
        "dataset": result.cell.dataset,
        "backbone": result.cell.backbone,
        "head": result.cell.head,
        "protocol": result.protocol,
        "device": f"{runs[0].device} {runs[0].precision}",
        "n": result.n,
        "best_on_test": _mean(highest),
        "by_validation": None if on_test else _mean([run.selected for run in runs]),
        "last": _mean([run.last for run in runs]),
        "gain": _mean(gains),
        "low": low,
        "high": high,
        "marks": "; ".join(map(str, result.differences)),
    }


def _mean(values: Sequence[float]) -> float:
    return statistics.mean(values)


def decimals(unit: str) -> int:
    """Digits shown after the point."""
    return 2 if unit == "%" else 3


def number(unit: str, sign: str = "") -> Any:
    """How numbers of a unit are written."""
    return lambda value: f"{value:{sign}.{decimals(unit)}f}"


WHO = (
    Column("cell", "Cell", "what spinal-train paper=CELL trains"),
    Column("dataset", "Data set"),
    Column("backbone", "Backbone"),
    Column("head", "Head"),
)
PROTOCOL = Column(
    "protocol",
    "Protocol",
    "paper: the test set steers and selects, as published; heldout: a validation part does, and "
    "the test set is read once",
)
DEVICE = Column("device", "Device", "type of device, and numerics")
MARKS = Column(
    "marks", "Marks", "what the runs do differently from the cell, or why there can be none"
)


def columns(table: str, unit: str) -> tuple[Column, ...]:
    """The columns of an accuracy table.

    Args:
        table: Key of the table, for its margin.
        unit: ``%`` or ``1e-3``.
    """
    plain, signed = number(unit), number(unit, "+")
    what = "accuracies in percent" if unit == "%" else "mean square errors in 1e-3; less is better"
    words = "; ".join(f"{word}: {rule}" for word, rule in RULES.items())
    measured = (
        PROTOCOL,
        DEVICE,
        Column("epochs", "Epochs", "epochs run of epochs published"),
        Column(
            "rule",
            "Shown",
            "which of our numbers is compared: under protocol paper the one that the original "
            "reports, as far as that is known, else the test accuracy at the epoch picked by the "
            "validation part",
        ),
        Column(
            "mean", "Ours", "mean of that number over runs; they differ in the seed alone", plain
        ),
        Column("sd", "SD", "standard deviation over seeds (n - 1)", plain),
        Column("n", "n", "number of runs, each with a seed of its own"),
        Column(
            "low",
            "95 % from",
            "lower end of Student's t interval of the mean over seeds; of one run, Wilson's "
            "interval for its finite test set, which says nothing about seeds",
            plain,
        ),
        Column("high", "to", "upper end of that interval", plain),
        Column("difference", "Diff", "ours minus paper", signed),
    )
    accuracies = (
        Column("selected", "Selected", "mean test accuracy at the selected epoch", plain),
        Column("last", "Last", "mean test accuracy after the last epoch", plain),
    )
    return (
        *WHO,
        Column("published", "Paper", f"the published single value; {what}", plain),
        Column("confidence", "Known", "how the published value is known to us"),
        Column("also", "Also", "further published values, not compared, and the state of the art"),
        Column("published_rule", "Paper's rule", "who picked the epoch in the original"),
        *measured,
        *(accuracies if unit == "%" else ()),
        Column("verdict", "Verdict", f"{words}. Margin here: {margin_rule(table, unit)}"),
        MARKS,
    )


SELECTION = (
    *WHO,
    PROTOCOL,
    DEVICE,
    Column("n", "n", "number of runs, each with a seed of its own"),
    Column(
        "best_on_test",
        "Best on test",
        f"mean accuracy of the epoch with the highest test accuracy ({BEST_ON_TEST}): the test set "
        f"chose it, so it is too high",
        number("%"),
    ),
    Column(
        "by_validation",
        "By validation",
        "mean test accuracy of the epoch that a validation part chose",
        number("%"),
    ),
    Column("last", "Last", "mean test accuracy after the last epoch", number("%")),
    Column(
        "gain",
        "Gain",
        "best on test minus by validation (minus last where there is no validation part), mean "
        "over runs: how much of an accuracy selection on the test set can explain",
        number("%", "+"),
    ),
    Column("low", "95 % from", "lower end of the t interval of Gain", number("%", "+")),
    Column("high", "to", "its upper end", number("%", "+")),
    MARKS,
)
