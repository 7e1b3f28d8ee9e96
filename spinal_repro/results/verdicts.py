"""The words that a row of a table ends in, and the rule of each, printed with every table."""

from collections.abc import Sequence

from spinal_repro.paper.cells import tables
from spinal_repro.records.statistics import prediction_interval

MIN_RUNS = 3
# Largest half-width of a prediction interval that still says something, as a share of the
# published error; that of accuracies, in percentage points, is in configs/paper/tables.yaml.
MARGIN_RELATIVE = 0.5
ROUNDING = {"%": 0.005, "1e-3": 0.0005}  # half a unit of the last digit published
DIGITISED = 0.03  # what a value read off a chart is good for, in percent

NOT_RUN, UNPUBLISHED = "not run", "no published number"
REDUCED, CHANGED, FEW = "reduced budget", "changed recipe", "too few runs"
REPRODUCED, INCONCLUSIVE, HIGHER, LOWER = "reproduced", "inconclusive", "higher", "lower"

RULES = {
    REPRODUCED: "the published value lies in the 95 % prediction interval for one new run, and "
    "that interval is narrow enough to say something (half-width within the margin)",
    INCONCLUSIVE: "the published value lies in the prediction interval, but the interval is wider "
    "than the margin: this is not agreement",
    HIGHER: "our numbers are higher: the published value lies below the prediction interval",
    LOWER: "our numbers are lower: the published value lies above the prediction interval",
    FEW: f"fewer than {MIN_RUNS} runs: no verdict",
    REDUCED: "shorter or smaller runs than published: no verdict, at most a direction",
    CHANGED: "the runs differ from the cell's recipe as their row says: no verdict",
    UNPUBLISHED: "the paper's number could not be found",
    NOT_RUN: "no run has been recorded",
}


def margin(table: str, unit: str, published: float) -> float:
    """The largest half-width of a prediction interval that still says something.

    Args:
        table: The table that the cell stands in.
        unit: ``%`` or ``1e-3``.
        published: The published value, in that unit.
    """
    if unit != "%":
        return MARGIN_RELATIVE * published
    return tables()[table].margin


def margin_rule(table: str, unit: str) -> str:
    """The margin of a table in words."""
    if unit != "%":
        return f"{100 * MARGIN_RELATIVE:g} % of the published value"
    return f"{margin(table, unit, 0.0):g} percentage points"


def rounding(unit: str, confidence: str) -> float:
    """How far the exact published value may lie from the one that is known."""
    return DIGITISED if confidence == "digitised" and unit == "%" else ROUNDING.get(unit, 0.0)


def judge(
    values: Sequence[float],
    published: float | None,
    *,
    margin: float,
    rounding: float = 0.0,
    reduced: bool = False,
    changed: bool = False,
) -> str:
    """One of `RULES`: the first that applies, from the last to the first.

    Args:
        values: The measured value of each run.
        published: The published single value, in the same unit.
        margin: See `margin`.
        rounding: See `rounding`.
        reduced: Whether the runs are shorter or smaller than published.
        changed: Whether they differ from the recipe in anything else.
    """
    if not values:
        return NOT_RUN
    if published is None:
        return UNPUBLISHED
    if reduced or changed:
        return REDUCED if reduced else CHANGED
    if len(values) < MIN_RUNS:
        return FEW
    low, high = prediction_interval(values)
    if published < low - rounding:
        return HIGHER
    if published > high + rounding:
        return LOWER
    return REPRODUCED if (high - low) / 2 <= margin else INCONCLUSIVE
