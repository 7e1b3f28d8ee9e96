"""What came out for a published cell: its runs, their statistics and the verdict."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spinal_repro.records import statistics
from spinal_repro.results.verdicts import judge, margin, rounding

if TYPE_CHECKING:
    from spinal_repro.paper.cells import Cell, Published

LAST, BEST_ON_TEST = "last epoch", "best on test"
AT_BEST_VALIDATION, BEST_VALIDATION = "test at best validation", "best validation"
LOWEST = "lowest last-batch MSE"
PAPER = "paper"
NON_REFERENCE_NUMERICS = (
    "mps",
    "bf16",
)  # devices and numerics that round unlike what the paper used


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
class ResultGroup:
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

    @functools.cached_property
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

    @functools.cached_property
    def values(self) -> list[float]:
        """What is compared, one a run."""
        return [run.value(self.shown) for run in self.runs]

    @property
    def marks(self) -> tuple[str, ...]:
        """What these runs do differently."""
        return self.runs[0].marks if self.runs else ()

    @property
    def numerics(self) -> str:
        """``mps``, ``bf16`` or both, where these runs compute unlike the paper's; else empty."""
        if not self.runs:
            return ""
        return ", ".join(
            x for x in (self.runs[0].device, self.runs[0].precision) if x in NON_REFERENCE_NUMERICS
        )

    @property
    def setting(self) -> str:
        """The protocol, and the numerics where it is unlike the paper's."""
        return f"{self.protocol}, {self.numerics}" if self.numerics else self.protocol

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
