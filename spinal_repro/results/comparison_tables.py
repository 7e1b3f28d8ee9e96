"""The tables of a comparison: groups of runs, and pairs of groups."""

from collections.abc import Mapping, Sequence
from typing import Any

from spinal_repro.records import statistics
from spinal_repro.records.metrics import TITLES
from spinal_repro.records.statistics import ALPHA, MIN_PAIRS
from spinal_repro.results.accuracy import ends
from spinal_repro.results.comparison import Comparison, Group, by_fold, times_as
from spinal_repro.results.pairs import HOLM
from spinal_repro.results.tables import COUNT, PERCENT, SIGNED, Column, interval_columns


def group_row(group: Group, metric: str) -> dict[str, Any]:
    """A row of the table of groups."""
    runs = list(group.runs.values())
    values, record = [run.value(metric) for run in runs], group.first
    assert record.test is not None
    of_folds = by_fold((run.key, run.value(metric)) for run in runs) if group.folds else values
    found: dict[str, Any] = {
        "group": group.label,
        "n": len(runs),
        "mean": statistics.mean(values),
        "sd": statistics.deviation(values) if len(runs) > 1 else None,
        "last": statistics.mean([run.value(metric, "last") for run in runs]),
        "head_parameters": record.counts["head_parameters"],
        "seconds": statistics.mean([run.record.wall_seconds for run in runs]),
    } | ends(statistics.mean_interval(of_folds, group.overlap))
    others = [name for name in record.test.selected.metrics or {} if name != metric]
    return found | {n: statistics.mean([run.value(n) for run in runs]) for n in others}


def comparison_row(comparison: Comparison) -> dict[str, Any]:
    """A row of the table of comparisons."""
    paired = comparison.paired
    return ends(comparison.interval) | {
        "second": comparison.second.label,
        "first": comparison.first.label,
        "n": paired.n,
        "difference": paired.mean,
        "p_holm": paired.p_holm,
        "size": comparison.size,
        "verdict": comparison.verdict,
        "last": {1: "better", -1: "worse", 0: "undecided"}[comparison.last.side()],
    }


CAVEAT = (
    "The folds share training images, so their differences are not independent: interval and "
    "p-value are those of the corrected resampled t-test (Nadeau and Bengio 2003). A difference is "
    "decided if the interval leaves out 0 and the p-value, corrected for all comparisons "
    f"here (Holm), is below {ALPHA:.2f}"
)
RULE = (
    f"A difference is decided with at least {MIN_PAIRS} pairs, if its 95 % interval leaves out "
    f"0 and the p-value of the exact sign-flip test, corrected for all comparisons here "
    f"(Holm), is below {ALPHA:.2f}"
)
INTERVAL = (
    "lower end of the 95 % interval of the mean difference between pairs; of a single pair, the "
    "interval for the finite test set"
)


def group_columns(rows: Sequence[Mapping[str, Any]], metric: str) -> list[Column]:
    """Columns of the table of groups, with those metrics that all of them have."""
    title = {key: f"{text[0].upper()}{text[1:]} %" for key, text in TITLES.items()}
    known = [
        Column("group", "Head", "runs that differ in seed and fold alone"),
        Column("n", "n", "runs"),
        Column("mean", title[metric], "mean on the test part, at the selected epoch", PERCENT),
        *interval_columns("lower end of the 95 % t interval of the mean", "its upper end", PERCENT),
        Column("sd", "SD", "standard deviation between runs", PERCENT),
        Column("last", "Last %", "the same with the last epoch", PERCENT),
    ]
    own = {column.key for column in known} | {"head_parameters", "seconds"}
    shared = [key for key in rows[0] if key not in own and all(key in row for row in rows)]
    known += [Column(key, title[key], "", PERCENT) for key in shared]
    known.append(Column("head_parameters", "Head parameters", "", COUNT))
    return [*known, Column("seconds", "Seconds", "of a run: training and evaluation", PERCENT)]


COMPARISON_COLUMNS = (
    Column("second", "Head"),
    Column("first", "Against"),
    Column("n", "n", "pairs with the same seed and images; in a cross-validation, folds"),
    Column("difference", "Difference", "mean, in percentage points", SIGNED),
    *interval_columns(INTERVAL, "its upper end", SIGNED),
    Column("p_holm", "Holm p", HOLM, "{:.4f}".format),
    Column("size", "Size", "head parameters, as a multiple of the other's", times_as),
    Column("verdict", "Verdict", "by the rule below"),
    Column("last", "Last epoch", "the verdict with the last epoch instead of the selected one"),
)
