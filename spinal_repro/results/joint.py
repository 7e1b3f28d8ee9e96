"""One answer over data sets: pairs that ask the same question, combined as in a meta-analysis."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from spinal_repro.results import accuracy
from spinal_repro.results.outcomes import grouped
from spinal_repro.results.pairs import SIDES, Pair
from spinal_repro.results.tables import PERCENT, SIGNED, Column, interval_columns

MIN_SEEDS = 3  # of a pair


def rows(pairs: Iterable[Pair]) -> list[dict[str, Any]]:
    """Combine the pairs of each question that was asked on two data sets or more."""
    questions = grouped(filter(_counts, pairs), _question)
    asked = [(question, combine(same)) for question, same in questions.items()]
    return [dict(question) | answer for question, answer in asked if answer]


def describe(pairs: Iterable[Pair]) -> str:
    """Write the combined answer as a last clause; empty with fewer than two data sets."""
    if not (found := combine(filter(_counts, pairs))):
        return ""
    interval = ", random-effects 95 % interval {low:+.2f} to {high:+.2f}" if "low" in found else ""
    text = "; mean effect {difference:+.2f} over {k} data sets" + interval
    return (text + "; Wilcoxon p {p:.2f}; better in {wins:.0f} % of the seeds").format(**found)


def combine(pairs: Iterable[Pair]) -> dict[str, Any]:
    """Combine pairs, each data set once with the mean of its pairs; empty with fewer than two.

    The interval is ``mean -+ t * sqrt((v + tau^2) / k)`` for k data sets, v their mean variance
    over seeds, and never narrower than the t interval of the k differences. Weights by variance
    would be estimated from a few seeds, and the interval misses its level: docs/statistics.md.
    """
    pairs = list(pairs)
    groups = grouped(pairs, lambda pair: pair.spinal.cell.dataset)
    if len(groups) < 2:
        return {}
    from scipy.stats import wilcoxon  # late: these take a second
    from statsmodels.stats.meta_analysis import combine_effects

    def means(of: Any) -> np.ndarray:
        return np.array([np.mean([of(pair) for pair in same]) for same in groups.values()])

    effects = means(lambda pair: pair.comparison.mean)
    signs = means(lambda pair: np.sign(pair.comparison.differences).mean())
    variance = np.mean(means(_variance) / [len(same) for same in groups.values()])
    with np.errstate(divide="ignore"):  # equal effects
        found = combine_effects(effects, np.full_like(effects, variance), "pm", use_t=True)
    low, high = map(float, found.conf_int()[1])
    numbers = {
        "datasets": ", ".join(groups),
        "k": len(groups),
        "n": sum(len(pair.seeds) for pair in pairs),
        "difference": float(effects.mean()),
        "tau": float(found.tau2) ** 0.5,
        "p": float(wilcoxon(effects, zero_method="zsplit").pvalue),
        "wins": 50 + 50 * float(signs.mean()),
    }
    sides = [pair.sign * pair.comparison.side() for pair in pairs]
    votes = {word: sides.count(side) for side, word in SIDES.items()}
    return numbers | votes | accuracy.ends((low, high) if len(groups) > 2 else None)


def _counts(pair: Pair) -> bool:
    """Whether it compares accuracies of the cell as published, on reference numerics."""
    whole = not (pair.spinal.differences or pair.spinal.numerics or pair.spinal.cell.shorter)
    return whole and pair.spinal.published.unit == "%" and len(pair.seeds) >= MIN_SEEDS


def _question(pair: Pair) -> tuple[tuple[str, Any], ...]:
    """Cells without the data set, ``cnn_fc`` of ``mnist/fashion_mnist_cnn_fc``, and protocol."""
    record: Any = pair.spinal.runs[0].record
    prefix, start = f"{record.config['dataset']['name']}_", record.config["model"].get("pretrained")
    cells = {"cell": pair.spinal.cell.name, "counterpart": pair.fc.cell.name}
    found = {k: name.rpartition("/")[2].removeprefix(prefix) for k, name in cells.items()}
    return *found.items(), ("protocol", pair.spinal.protocol), ("pretrained", bool(start))


def _variance(pair: Pair) -> float:
    """Variance of the mean difference over seeds; at least that of rounding to whole images."""
    tested: Any = pair.spinal.runs[0].tested(pair.spinal.reported_metric)
    found = float(np.var(pair.comparison.differences, ddof=1))
    return max(found, (100 / tested.count) ** 2 / 12) / len(pair.seeds)


VOTES = "comparisons with this verdict in the table of pairs"
EFFECTS = "random-effects t interval; none for 2 data sets (t = 12.7)"
WILCOXON = "signed-rank test over data sets; 2 / 2^k at least, so above 0.05 with fewer than 6"
COLUMNS = (
    Column("cell", "Cell", "network and head, without the data set's name"),
    Column("counterpart", "Other cell", "the one that it is compared with"),
    accuracy.PROTOCOL,
    Column("datasets", "Data sets", f"with {MIN_SEEDS} pairs of runs or more, each counted once"),
    Column("k", "k", "number of data sets"),
    Column("n", "n", "pairs of runs"),
    *(Column(vote, vote.capitalize(), VOTES) for vote in SIDES.values()),
    Column("difference", "Mean", "mean difference in percentage points", SIGNED),
    *interval_columns(EFFECTS, "upper end of that interval", SIGNED),
    Column("tau", "tau", "SD of the true difference between data sets", PERCENT),
    Column("p", "Wilcoxon p", WILCOXON, "{:.4f}".format),
    Column("wins", "P(better) %", "of seeds, a tie as half; mean over data sets", "{:.0f}".format),
)
