"""Verdicts on the rows of tables, and their rules, which are printed with every table."""

from collections.abc import Sequence

from spinal_repro.paper.cells import tables
from spinal_repro.records.statistics import prediction_interval

MIN_RUNS = 3
# Largest half-width of a prediction interval that counts as agreement, as a fraction of the
# published error; that of accuracies, in percentage points, is in configs/paper/tables.yaml.
MARGIN_RELATIVE = 0.5
ROUNDING = {"%": 0.005, "1e-3": 0.0005}  # half a unit of the last digit published
DIGITISED = 0.03  # reading error of a value digitised from a chart, in percentage points

NOT_RUN, UNPUBLISHED = "not run", "no published number"
REDUCED, CHANGED, FEW = "reduced budget", "changed recipe", "too few runs"
REPRODUCED, INCONCLUSIVE, HIGHER, LOWER = "reproduced", "inconclusive", "higher", "lower"

RULES = {
    REPRODUCED: "the published value lies in the 95 % prediction interval for one new run, and "
    "that interval is narrow enough (half-width within the margin)",
    INCONCLUSIVE: "the published value lies in the prediction interval, but the interval is wider "
    "than the margin: this is not agreement",
    HIGHER: "our numbers are higher: the published value lies below the prediction interval",
    LOWER: "our numbers are lower: the published value lies above the prediction interval",
    FEW: f"fewer than {MIN_RUNS} runs: no verdict",
    REDUCED: "shorter or smaller runs than published: no verdict, at most a direction",
    CHANGED: "the recipe of the runs differs from the cell's, see Differences: no verdict",
    UNPUBLISHED: "the paper's number could not be found",
    NOT_RUN: "no run has been recorded",
}


def margin(table: str, unit: str, published: float) -> float:
    """Largest half-width of a prediction interval that still says something, in the unit."""
    return tables()[table].margin if unit == "%" else MARGIN_RELATIVE * published


def margin_rule(table: str, unit: str) -> str:
    """The margin of a table as text."""
    if unit != "%":
        return f"{100 * MARGIN_RELATIVE:g} % of the published value"
    return f"{margin(table, unit, 0.0):g} percentage points"


def rounding(unit: str, confidence: str) -> float:
    """Return the largest difference between the exact published value and the printed one."""
    return DIGITISED if confidence == "digitised" and unit == "%" else ROUNDING.get(unit, 0.0)


def judge(
    values: Sequence[float],
    published: float | None,
    margin: float,
    rounding: float = 0.0,
    change: str = "",
) -> str:
    """Return the verdict: the last entry of `RULES` that applies.

    Args:
        values: One per run, in the unit of ``published``.
        change: `REDUCED` or `CHANGED`, where the runs differ from the cell.
    """
    if not values:
        return NOT_RUN
    if published is None:
        return UNPUBLISHED
    if change:
        return change
    if len(values) < MIN_RUNS:
        return FEW
    low, high = prediction_interval(values)
    if published < low - rounding:
        return HIGHER
    if published > high + rounding:
        return LOWER
    return REPRODUCED if (high - low) / 2 <= margin else INCONCLUSIVE
