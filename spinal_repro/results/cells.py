"""Records seen from the published cells: which run counts for which number, and what came out.

A record belongs to the cell that it names, or, where it names none, to every cell trained in the
same way (see `differences`). What it does differently is a mark of its row.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spinal_repro.results import statistics
from spinal_repro.results.differences import differences, reductions, training_key
from spinal_repro.results.verdicts import judge, margin, rounding

if TYPE_CHECKING:
    from spinal_repro.paper import Cell, Published

LAST, BEST_ON_TEST = "last epoch", "best on test"
AT_BEST_VALIDATION, BEST_VALIDATION = "test at best validation", "best validation"
LOWEST = "lowest last-batch MSE"
REGRESSION_SETTINGS = {"target": "column", "layers": "distinct"}
PAPER = "paper"


@dataclass(frozen=True)
class Run:
    """One record seen from its cell.

    Attributes:
        record: The record.
        seed: Seed of the run; a record of the regression holds many.
        device: Type of the device that it ran on, e.g. ``cpu``.
        precision: ``fp32`` or ``bf16``.
        epochs: Epochs run.
        selected: Test accuracy in percent at the selected epoch (regression: the published
            metric in 1e-3, here and in ``last``).
        last: Test accuracy in percent after the last epoch.
        best_on_test: The highest one of all epochs, where the test set was read after each.
        validation: Accuracy in percent on the validation part at the selected epoch, if any.
        marks: What differs from the cell, in words; empty: as the cell says.
        reduced: Whether the run is shorter or smaller than the cell.
    """

    record: dict[str, Any]
    seed: int
    device: str
    precision: str
    epochs: int
    selected: float
    last: float
    best_on_test: float | None
    validation: float | None
    marks: tuple[str, ...]
    reduced: bool

    def value(self, shown: str) -> float:
        """The number that a rule shows, see `CellResult.shown`."""
        if shown == LAST:
            return self.last
        if shown == BEST_VALIDATION and self.validation is not None:
            return self.validation
        return self.selected


@dataclass(frozen=True)
class CellResult:
    """Equal runs of one cell: one protocol, device type, precision and set of marks.

    Attributes:
        cell: The published cell.
        protocol: ``paper`` or ``heldout``.
        runs: By seed, each seed once; empty where nothing has been run.
    """

    cell: "Cell"
    protocol: str
    runs: tuple[Run, ...]

    @property
    def published(self) -> "Published | None":
        """The number that is compared, even where its value was not found."""
        return self.cell.published[0] if self.cell.published else None

    @property
    def published_value(self) -> float | None:
        """The published value, if it is known."""
        return None if self.published is None else self.published.value

    @property
    def unit(self) -> str:
        """``%`` or ``1e-3``."""
        return "%" if self.published is None else self.published.unit

    @property
    def shown(self) -> str:
        """Which of a run's numbers is compared.

        Under ``paper`` the one that the original reports, as far as it is known: the last epoch
        where it says so, else the epoch that was selected as it selected. Under any other
        protocol always the test accuracy at the epoch that the validation part picked.
        """
        if self.cell.regression is not None:
            return LOWEST
        published = "" if self.published is None else self.published.selection
        if self.protocol == PAPER and published == LAST:
            return LAST
        on_test = self.runs and self.runs[0].record["selection"]["on"] == "test"
        if self.protocol == PAPER and published == BEST_VALIDATION and not on_test:
            return BEST_VALIDATION
        if on_test or (not self.runs and self.protocol == PAPER):
            return BEST_ON_TEST
        return AT_BEST_VALIDATION

    @property
    def values(self) -> list[float]:
        """What is compared, one a run."""
        return [run.value(self.shown) for run in self.runs]

    @property
    def marks(self) -> tuple[str, ...]:
        """What these runs do differently."""
        return self.runs[0].marks if self.runs else ()

    @property
    def reduced(self) -> bool:
        """Whether these runs are shorter or smaller than published."""
        return bool(self.runs) and self.runs[0].reduced

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.runs)

    @property
    def mean(self) -> float | None:
        """Mean of the values."""
        return statistics.mean(self.values) if self.runs else None

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds; None below two runs."""
        return statistics.deviation(self.values) if self.n > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean over seeds; of one run, that of its finite test set."""
        if self.n > 1:
            return statistics.mean_interval(self.values)
        if not self.runs or self.shown in (LOWEST, BEST_VALIDATION):
            return None
        part = "last" if self.shown == LAST else "selected"
        test = self.runs[0].record["test"][part]
        low, high = statistics.binomial_interval(test["correct"], test["count"])
        return 100 * low, 100 * high

    @property
    def prediction(self) -> tuple[float, float] | None:
        """Where one new run would lie with 95 % chance; None below two runs."""
        return statistics.prediction_interval(self.values) if self.n > 1 else None

    @property
    def difference(self) -> float | None:
        """Mean minus published value."""
        if self.mean is None or self.published_value is None:
            return None
        return self.mean - self.published_value

    @property
    def verdict(self) -> str:
        """One of `verdicts.RULES`."""
        value, unit = self.published_value, self.unit
        return judge(
            self.values,
            value,
            margin=margin(self.cell.table, unit, value or 0.0),
            rounding=rounding(unit, self.published.confidence if self.published else ""),
            reduced=self.reduced,
            changed=bool(self.marks) and not self.reduced,
        )


def match(cells: Sequence["Cell"], records: Iterable[Mapping[str, Any]]) -> list[CellResult]:
    """Sort records into cells.

    Args:
        cells: From `spinal_repro.paper.load_cells`.
        records: From `spinal_repro.records.read_records`; those that belong to no cell are left
            out.

    Returns:
        In the order of the cells, at least one result each: ``paper`` first, then as little
        changed as possible.
    """
    owner = Owners(cells)
    runs: dict[str, list[tuple[str, Run]]] = {cell.name: [] for cell in cells}
    regression = [cell for cell in cells if cell.regression is not None]
    for record in records:
        if record.get("kind") == "regression":
            for cell in regression:
                runs[cell.name] += [(PAPER, run) for run in _regression_runs(cell, record)]
            continue
        for cell in owner.of(record):
            runs[cell.name].append((record["config"]["protocol"]["name"], _run(cell, record)))
    results = {cell.name: _results(cell, runs[cell.name]) for cell in cells}
    for cell in cells:
        if getattr(cell, "best_of", ()) and not runs[cell.name]:
            others = [result for name in cell.best_of for result in results.get(name, ())]
            results[cell.name] = _best(cell, others)
    return [result for cell in cells for result in results[cell.name]]


class Owners:
    """Finds the cells that a record counts for.

    Configurations of cells take a moment to compose, so they are asked for as late as possible:
    a record that names its cell needs that one alone.
    """

    def __init__(self, cells: Sequence["Cell"]) -> None:
        self._by_name = {cell.name: cell for cell in cells}

    @functools.cached_property
    def _by_key(self) -> dict[str, list["Cell"]]:
        found: dict[str, list[Cell]] = {}
        for cell in self._by_name.values():
            if cell.config is not None:
                found.setdefault(training_key(cell.config), []).append(cell)
        return found

    def of(self, record: Mapping[str, Any]) -> list["Cell"]:
        """The cell that a record names, else every cell that is trained in the same way.

        Args:
            record: Of one run.
        """
        config = record["config"]
        named = self._by_name.get(config.get("cell") or "")
        if named is not None and named.config is not None:
            return [named]
        epochs = config["recipe"]["epochs"]
        alike = self._by_key.get(training_key(config), [])
        return [cell for cell in alike if epochs <= cell.config["recipe"]["epochs"]]


def _run(cell: "Cell", record: Mapping[str, Any]) -> Run:
    config, test, selection = record["config"], record["test"], record["selection"]
    assert cell.config is not None
    less = reductions(config, cell.config)
    best = test.get("best_on_test")
    on_val = selection["on"] == "val"
    return Run(
        record=dict(record),
        seed=record["seed"],
        device=record["environment"]["device"],
        precision=config["runtime"]["precision"],
        epochs=config["recipe"]["epochs"],
        selected=_percent(test["selected"]),
        last=_percent(test["last"]),
        best_on_test=None if best is None else round(100 * best["accuracy"], 10),
        validation=round(100 * selection["accuracy"], 10) if on_val else None,
        marks=(*less, *differences(config, cell.config)),
        reduced=bool(less),
    )


def _percent(part: Mapping[str, Any]) -> float:
    return float(100 * part["correct"] / part["count"])


def _regression_runs(cell: "Cell", record: Mapping[str, Any]) -> list[Run]:
    """The runs of a regression record that count for a cell, at its number of epochs or below."""
    wanted = cell.regression
    if wanted is None:
        return []
    rows = [
        row
        for row in record["runs"]
        if (row["net"], row["function"]) == (wanted["net"], wanted["function"])
        and row["epochs"] <= wanted["epochs"]
    ]
    epochs = max((row["epochs"] for row in rows), default=0)
    less = [f"{epochs} of {wanted['epochs']} epochs"] if epochs < wanted["epochs"] else []
    settings = record["settings"]
    other = [
        f"{key} {settings[key]} instead of {usual}"
        for key, default in REGRESSION_SETTINGS.items()
        if settings[key] != (usual := wanted.get(key, default))
    ]
    return [
        Run(
            record=dict(record),
            seed=row["seed"],
            device=record["environment"]["device"],
            precision="fp32",
            epochs=epochs,
            selected=1000 * row["published_metric"],
            last=1000 * row["published_metric"],
            best_on_test=None,
            validation=None,
            marks=(*less, *other),
            reduced=bool(less),
        )
        for row in rows
        if row["epochs"] == epochs
    ]


def _results(cell: "Cell", found: Iterable[tuple[str, Run]]) -> list[CellResult]:
    """Equal runs together; of runs with the same seed the first counts."""
    groups: dict[tuple[Any, ...], dict[int, Run]] = {}
    for protocol, run in found:
        key = (protocol != PAPER, protocol, len(run.marks), run.device, run.precision, run.marks)
        groups.setdefault(key, {}).setdefault(run.seed, run)
    if not groups:
        return [CellResult(cell, PAPER, ())]
    return [
        CellResult(cell, key[1], tuple(runs[seed] for seed in sorted(runs)))
        for key, runs in sorted(groups.items())
    ]


def _best(cell: "Cell", others: Sequence[CellResult]) -> list[CellResult]:
    """The result of a cell that is the best of others: their highest mean, whole runs first."""
    ran = [result for result in others if result.runs]
    whole = [result for result in ran if not result.marks] or ran
    best: dict[str, CellResult] = {}
    for result in whole:
        known = best.get(result.protocol)
        if known is None or (result.mean or 0.0) > (known.mean or 0.0):
            best[result.protocol] = result
    found = [CellResult(cell, protocol, best[protocol].runs) for protocol in sorted(best)]
    return found[::-1] or [CellResult(cell, PAPER, ())]
