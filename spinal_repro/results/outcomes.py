"""Runs of a published cell, their statistics and the verdict."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from spinal_repro.paper.cells import Cell, Published
from spinal_repro.records import statistics
from spinal_repro.records.compare import Difference
from spinal_repro.records.record import Accuracy, AnyRecord, Record
from spinal_repro.results.verdicts import CHANGED, Margin, judge, margin, rounding

LAST, BEST_ON_TEST = "last epoch", "best on test"
AT_BEST_VALIDATION, BEST_VALIDATION = "test at best validation", "best validation"
LOWEST = "lowest last-batch MSE"
PAPER = "paper"
NON_REFERENCE_NUMERICS = ("mps", "bf16")  # they round differently from the paper's CUDA and fp32

Item = TypeVar("Item")
Key = TypeVar("Key")


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Group items by a key, in the order in which they come."""
    found = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return dict(found)


@dataclass(frozen=True)
class Run:
    """One training run of a cell; a regression record holds many.

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
    def selected_on_test(self) -> bool:
        return isinstance(self.record, Record) and self.record.selection.on == "test"

    def value(self, metric: str) -> float:
        """The number that `ResultGroup.reported_metric` names."""
        known = {LAST: self.last, BEST_VALIDATION: self.validation}.get(metric)
        return self.selected if known is None else known

    def tested(self, metric: str) -> Accuracy | None:
        """Counts of test images at the epoch of a metric; None for the regression."""
        if not isinstance(self.record, Record) or self.record.test is None:
            return None
        return self.record.test.last if metric == LAST else self.record.test.selected


@dataclass(frozen=True)
class ResultGroup:
    """Runs of one cell with the same protocol, device, precision and differences, by seed.

    ``mean`` needs a run; ``sd`` is None for a single one, ``interval`` where it is not known.
    """

    cell: Cell
    protocol: str
    runs: tuple[Run, ...]
    claimed: float | None = None  # difference that the paper claims between cell and counterpart

    @property
    def published(self) -> Published:
        return self.cell.result

    @functools.cached_property
    def reported_metric(self) -> str:
        """Name of the metric that is compared with the published one: `accuracy.METRIC`."""
        if self.cell.regression is not None:
            return LOWEST
        reported = self.published.selection if self.protocol == PAPER else ""
        if reported == LAST:
            return LAST
        if self.runs and self.runs[0].selected_on_test:
            return BEST_ON_TEST
        return BEST_VALIDATION if reported == BEST_VALIDATION else AT_BEST_VALIDATION

    @functools.cached_property
    def values(self) -> list[float]:
        return [run.value(self.reported_metric) for run in self.runs]

    @property
    def differences(self) -> tuple[Difference, ...]:
        return self.runs[0].differences if self.runs else ()

    @property
    def numerics(self) -> str:
        """``mps``, ``bf16`` or both, where these runs used them."""
        used = (self.runs[0].device, self.runs[0].precision) if self.runs else ()
        return ", ".join(name for name in used if name in NON_REFERENCE_NUMERICS)

    @property
    def setting(self) -> str:
        return f"{self.protocol}, {self.numerics}" if self.numerics else self.protocol

    @property
    def change(self) -> str:
        return CHANGED if self.differences else ""

    @property
    def n(self) -> int:
        return len(self.runs)

    @property
    def mean(self) -> float:
        return statistics.mean(self.values)

    @property
    def sd(self) -> float | None:
        return statistics.deviation(self.values) if self.n > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean: `accuracy.INTERVAL`."""
        over_seeds = statistics.mean_interval(self.values) if self.runs else None
        tested = self.runs[0].tested(self.reported_metric) if self.runs else None
        if over_seeds or tested is None or self.reported_metric == BEST_VALIDATION:
            return over_seeds
        right = round(tested.count * self.mean / 100)
        low, high = statistics.binomial_interval(right, tested.count)
        return 100 * low, 100 * high

    @property
    def difference(self) -> float | None:
        return None if self.published.value is None else self.mean - self.published.value

    @functools.cached_property
    def margin(self) -> Margin:
        return margin(self.cell, self.claimed)

    @property
    def verdict(self) -> str:
        return self.verdict_by(self.values)

    def verdict_by(self, values: Sequence[float]) -> str:
        unsure = rounding(self.published.unit, self.published.confidence)
        return judge(values, self.published.value, self.margin, unsure, self.change)

    @property
    def alternative_metric(self) -> str:
        """The metric with the other choice of the epoch: selected or last."""
        if self.cell.regression is not None:
            return self.reported_metric
        if self.reported_metric != LAST:
            return LAST
        return BEST_ON_TEST if self.runs and self.runs[0].selected_on_test else AT_BEST_VALIDATION
