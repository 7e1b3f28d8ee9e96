"""Runs of a published cell, their statistics and the verdict."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spinal_repro.records import statistics
from spinal_repro.records.compare import BUDGET, Difference
from spinal_repro.records.record import AnyRecord, Record
from spinal_repro.results.verdicts import judge, margin, rounding

if TYPE_CHECKING:
    from spinal_repro.paper.cells import Cell, Published

LAST, BEST_ON_TEST = "last epoch", "best on test"
AT_BEST_VALIDATION, BEST_VALIDATION = "test at best validation", "best validation"
LOWEST = "lowest last-batch MSE"
PAPER = "paper"
NON_REFERENCE_NUMERICS = ("mps", "bf16")  # they round differently from what the paper used


@dataclass(frozen=True)
class Run:
    """One training of a cell; a regression record holds many.

    ``selected`` and ``last`` are test accuracies in percent at the selected and the last epoch
    (regression: both are the published metric in 1e-3); ``best_on_test`` is the highest of all
    epochs, ``validation`` the accuracy on the validation part at the selected epoch.
    """

    record: AnyRecord
    seed: int
    device: str
    precision: str
    epochs: int
    selected: float
    last: float
    best_on_test: float | None = None
    validation: float | None = None
    differences: tuple[Difference, ...] = ()  # from the cell

    @property
    def reduced(self) -> bool:
        """Whether the run is shorter or smaller than the cell."""
        return any(difference.kind == BUDGET for difference in self.differences)

    @property
    def identity(self) -> str | None:
        """Identity of its configuration; None for the regression."""
        return self.record.identity if isinstance(self.record, Record) else None

    @property
    def selected_on_test(self) -> bool:
        """Whether the test part selected the epoch."""
        return isinstance(self.record, Record) and self.record.selection.on == "test"

    def value(self, metric: str) -> float:
        """The number that `ResultGroup.reported_metric` names."""
        if metric == LAST:
            return self.last
        if metric == BEST_VALIDATION and self.validation is not None:
            return self.validation
        return self.selected


@dataclass(frozen=True)
class ResultGroup:
    """Runs of one cell with the same protocol, device, precision and differences, by seed.

    ``runs`` is empty where nothing has been run.
    """

    cell: "Cell"
    protocol: str
    runs: tuple[Run, ...]

    @property
    def published(self) -> "Published | None":
        """The published number to compare with; its value may be unknown."""
        return self.cell.published[0] if self.cell.published else None

    @property
    def published_value(self) -> float | None:
        """The published value, if it is known."""
        return None if self.published is None else self.published.value

    @property
    def unit(self) -> str:
        """``%`` or ``1e-3``."""
        return "%" if self.published is None else self.published.unit

    @functools.cached_property
    def reported_metric(self) -> str:
        """Which number of a run is compared with the published one.

        Under ``paper`` the one that the original reports, as far as it is known: the last epoch
        where it says so, else the epoch selected as the original selected it. Under any other
        protocol the test accuracy at the epoch that the validation part selected.
        """
        if self.cell.regression is not None:
            return LOWEST
        published = "" if self.published is None else self.published.selection
        if self.protocol == PAPER and published == LAST:
            return LAST
        on_test = bool(self.runs) and self.runs[0].selected_on_test
        if self.protocol == PAPER and published == BEST_VALIDATION and not on_test:
            return BEST_VALIDATION
        if on_test or (not self.runs and self.protocol == PAPER):
            return BEST_ON_TEST
        return AT_BEST_VALIDATION

    @functools.cached_property
    def values(self) -> list[float]:
        """The reported metric of each run."""
        return [run.value(self.reported_metric) for run in self.runs]

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Settings in which these runs differ from the cell."""
        return self.runs[0].differences if self.runs else ()

    @property
    def numerics(self) -> str:
        """``mps``, ``bf16`` or both, where these runs used them."""
        used = (self.runs[0].device, self.runs[0].precision) if self.runs else ()
        return ", ".join(name for name in used if name in NON_REFERENCE_NUMERICS)

    @property
    def setting(self) -> str:
        """Protocol and `numerics`."""
        return f"{self.protocol}, {self.numerics}" if self.numerics else self.protocol

    @property
    def reduced(self) -> bool:
        """Whether these runs are shorter or smaller than the cell."""
        return bool(self.runs) and self.runs[0].reduced

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.runs)

    @property
    def mean(self) -> float | None:
        """Mean of the values; None without runs."""
        return statistics.mean(self.values) if self.runs else None

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds; None below two runs."""
        return statistics.deviation(self.values) if self.n > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean over seeds; of one run, that of its finite test set."""
        if self.n > 1:
            return statistics.mean_interval(self.values)
        record = self.runs[0].record if self.runs else None
        if not isinstance(record, Record) or self.reported_metric == BEST_VALIDATION:
            return None
        assert record.test is not None
        found = record.test.last if self.reported_metric == LAST else record.test.selected
        low, high = statistics.binomial_interval(found.correct, found.count)
        return 100 * low, 100 * high

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
            changed=bool(self.differences) and not self.reduced,
        )
