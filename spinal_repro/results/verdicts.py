"""Verdicts on the rows of tables, and their rules, which are printed with every table."""

from collections.abc import Sequence
from dataclasses import dataclass

from spinal_repro.data.catalog import find_entry
from spinal_repro.paper.cells import Cell, tables
from spinal_repro.records.statistics import binomial_interval, mean_interval

MIN_RUNS = 3
MARGIN_RELATIVE = 0.5  # of a published error: the largest margin of the regression
ROUNDING = {"%": 0.005, "1e-3": 0.0005}  # half a unit of the last digit published
DIGITISED = 0.03  # reading error of a value digitised from a chart, in percentage points

NOT_RUN, UNPUBLISHED = "not run", "no published number"
CHANGED, FEW, BELOW = "changed recipe", "too few runs", "below resolution"
REPRODUCED, INCONCLUSIVE, HIGHER, LOWER = "reproduced", "inconclusive", "higher", "lower"

RULES = {
    REPRODUCED: "the 95 % interval of our mean lies within the margin around the published value. "
    "A mean that is off by the margin is called reproduced in at most 2.5 % of cases",
    INCONCLUSIVE: "neither reproduced nor higher or lower",
    BELOW: "the difference that the paper claims for the pair is no larger than the test set can "
    "resolve, see Margin",
    HIGHER: "our numbers are higher: the published value lies below the 95 % prediction interval "
    "for one new run. Where the original's runs are like ours, this or lower is said in 5 % of "
    "cases",
    LOWER: "our numbers are lower: the published value lies above that interval",
    FEW: f"fewer than {MIN_RUNS} runs: no verdict",
    CHANGED: "the recipe of the runs differs from the cell's, see Differences: no verdict",
    UNPUBLISHED: "the paper's number could not be found",
    NOT_RUN: "no run has been recorded",
}
MARGIN = (
    "half of the difference that the paper claims between this head and its counterpart, in the "
    "unit of the table; the table's own margin (half of a published error in the regression) where "
    "that is less or none is claimed"
)


@dataclass(frozen=True)
class Margin:
    """How far our mean may be from the published value, in its unit."""

    size: float
    claimed: float | None = None  # difference that the paper claims for the pair
    resolution: float = 0.0  # half-width of the 95 % interval of one accuracy on the test set

    @property
    def below_resolution(self) -> bool:
        return self.claimed is not None and self.claimed <= self.resolution

    def __str__(self) -> str:
        if self.claimed is None:
            return f"{self.size:g}"
        if self.below_resolution:
            return f"claimed {self.claimed:.3g}, one accuracy is known to ± {self.resolution:.2g}"
        how = "half" if self.size == self.claimed / 2 else "less than half"
        return f"{self.size:.3g}, {how} of the claimed {self.claimed:.3g}"


def margin(cell: Cell, claimed: float | None) -> Margin:
    """The margin of a cell's published value; ``claimed`` as in `Margin`."""
    largest = tables()[cell.table].margin
    if cell.result.unit != "%":
        largest = MARGIN_RELATIVE * (cell.result.value or 0.0)
    if claimed is None:
        return Margin(largest)
    return Margin(min(claimed / 2, largest), claimed, resolution(cell))


def resolution(cell: Cell) -> float:
    """Half-width, in points, of the 95 % interval of the published accuracy on its test set.

    0 without a number of test images.
    """
    value = cell.result.value
    images = find_entry(cell.data).sizes["test"] if cell.data else None
    if value is None or images is None:
        return 0.0
    low, high = binomial_interval(round(images * value / 100), images)
    return 50 * (high - low)


def rounding(unit: str, confidence: str) -> float:
    """Return the largest difference between the exact published value and the printed one."""
    return DIGITISED if confidence == "digitised" and unit == "%" else ROUNDING.get(unit, 0.0)


def judge(
    values: Sequence[float],
    published: float | None,
    margin: Margin,
    rounding: float = 0.0,
    change: str = "",
) -> str:
    """Return the verdict on the values of runs: the last entry of `RULES` that applies."""
    if not values:
        return NOT_RUN
    if published is None:
        return UNPUBLISHED
    if change:
        return change
    if len(values) < MIN_RUNS:
        return FEW
    new_run, interval = mean_interval(values, new=1), mean_interval(values)
    if new_run is None or interval is None:  # equal values say nothing about the spread
        return BELOW if margin.below_resolution else INCONCLUSIVE
    if published < new_run[0] - rounding:
        return HIGHER
    if published > new_run[1] + rounding:
        return LOWER
    if margin.below_resolution:
        return BELOW
    within = margin.size - rounding
    held = published - within <= interval[0] and interval[1] <= published + within
    return REPRODUCED if held else INCONCLUSIVE
