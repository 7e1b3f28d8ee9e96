"""FC against Spinal: the same data, backbone, recipe and seeds, compared seed by seed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from spinal_repro.records import statistics
from spinal_repro.records.correctness import unpack_correct
from spinal_repro.records.record import Record, RegressionRecord
from spinal_repro.records.statistics import Paired, mcnemar_test, paired
from spinal_repro.results import accuracy
from spinal_repro.results.cells import regression_runs
from spinal_repro.results.outcomes import ResultGroup, Run
from spinal_repro.results.tables import Column
from spinal_repro.results.verdicts import MIN_RUNS, REDUCED

ALPHA = 1 - statistics.LEVEL
FEW, NONE_SHOWN = "too few pairs", "no significant difference"
SPINAL_HIGHER, SPINAL_LOWER = "Spinal higher", "Spinal lower"
HASHES = ("train_hash", "test_hash", "split_hash")


class McNemarCounts(NamedTuple):
    """Test images on which the two networks of one seed differ, with McNemar's p-value."""

    only_fc: int
    only_spinal: int
    p: float


@dataclass(frozen=True)
class Pair:
    """A Spinal result and its fully connected counterpart, run in the same way."""

    spinal: ResultGroup
    fc: ResultGroup
    seeds: tuple[int, ...]  # that both have on the same images
    first: tuple[float, ...]  # values of FC, by seed
    second: tuple[float, ...]  # of Spinal
    comparison: Paired
    images: tuple[McNemarCounts, ...]  # of each seed whose records hold `correct_bits`

    @property
    def order(self) -> tuple[int, bool, int]:
        """Sort key of pairs of the same cells: fewest differences, then most seeds, first."""
        return len(self.spinal.differences), bool(self.spinal.numerics), -len(self.seeds)

    @property
    def sign(self) -> int:
        """-1 where less is better."""
        return 1 if self.spinal.cell.regression is None else -1

    @property
    def verdict(self) -> str:
        """The sign of the difference if its t interval excludes 0; never equality."""
        if self.spinal.change == REDUCED:
            return REDUCED
        if len(self.seeds) < MIN_RUNS or self.comparison.interval is None:
            return FEW
        low, high = self.comparison.interval
        if low > 0:
            return SPINAL_HIGHER
        return SPINAL_LOWER if high < 0 else NONE_SHOWN


def pairs(spinal: Iterable[ResultGroup], fc: Iterable[ResultGroup]) -> list[Pair]:
    """Pair the results of a cell with those of its counterpart that were run in the same way."""
    others = {_settings(result): result for result in fc}
    both = [(other, result) for result in spinal if (other := others.get(_settings(result)))]
    return [pair for other, result in both if (pair := _pair(other, result))]


def _settings(result: ResultGroup) -> tuple[Any, ...]:
    run = result.runs[0]
    return result.protocol, run.device, run.precision, run.differences


def _pair(fc: ResultGroup, spinal: ResultGroup) -> Pair | None:
    others = {run.seed: run for run in fc.runs}
    for record in {id(run.record): run.record for run in spinal.runs}.values():
        if isinstance(record, RegressionRecord):  # has both nets, trained on one machine
            others |= {run.seed: run for run in regression_runs(fc.cell, record)}
    both = [(others[run.seed], run) for run in spinal.runs if run.seed in others]
    both = [(a, b) for a, b in both if _images(a) == _images(b)]
    if not both:
        return None
    metric = spinal.reported_metric
    first = tuple(a.value(metric) for a, _ in both)
    second = tuple(b.value(metric) for _, b in both)
    images = tuple(found for a, b in both if (found := _compare_images(a, b, metric)))
    seeds = tuple(run.seed for _, run in both)
    return Pair(spinal, fc, seeds, first, second, paired(first, second), images)


def _images(run: Run) -> list[Any]:
    """Hashes of a run's data and split; the regression always has the same."""
    return [run.record.data.get(k) for k in HASHES] if isinstance(run.record, Record) else []


def _compare_images(fc: Run, spinal: Run, metric: str) -> McNemarCounts | None:
    tested = [run.tested(metric) for run in (fc, spinal)]
    right = [unpack_correct(t.correct_bits, t.count) for t in tested if t and t.correct_bits]
    if len(right) < len(tested):
        return None
    a, b = right
    only_fc, only_spinal = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    return McNemarCounts(only_fc, only_spinal, mcnemar_test(only_fc, only_spinal))


def row(pair: Pair) -> dict[str, Any]:
    """Turn a pair into a row of the table."""
    comparison, images = pair.comparison, pair.images
    found = accuracy.identify(pair.spinal) | {
        "counterpart": pair.fc.cell.name,
        "rule": pair.spinal.reported_metric,
        "unit": pair.spinal.published.unit,
        "n": len(pair.seeds),
        "fc": statistics.mean(pair.first),
        "spinal": statistics.mean(pair.second),
        "difference": comparison.mean,
        "p": comparison.p,
        "verdict": pair.verdict,
    }
    if images:
        found["only_fc"] = statistics.mean([image.only_fc for image in images])
        found["only_spinal"] = statistics.mean([image.only_spinal for image in images])
        found["mcnemar"] = f"{sum(image.p < ALPHA for image in images)} of {len(images)}"
    return found | accuracy.ends(comparison.interval)


_PLAIN, _SIGNED, _IMAGES = accuracy.number("1e-3"), accuracy.number("1e-3", "+"), "{:.1f}".format
FLIPS = (
    f"two-sided sign-flip test of the differences, exact up to {statistics.EXACT_PAIRS} pairs; "
    "it cannot fall below 2 / 2^n, which for 5 pairs is 0.062"
)
ONLY_FC = "test images that the FC network alone gets right, mean over seeds"
MCNEMAR = (
    f"seeds in which those two differ by more than chance (exact test, p < {ALPHA:.2f}), of "
    "seeds whose records keep the images; empty: none does"
)
VERDICT = (
    f"{SPINAL_HIGHER} or {SPINAL_LOWER}: the t interval leaves out 0; {NONE_SHOWN}: it does "
    f"not, which is not equality; {FEW}: below {MIN_RUNS}; {REDUCED}: the sign of Diff is a "
    "direction and no more"
)
COLUMNS = (
    *accuracy.CELL_COLUMNS,
    Column("counterpart", "FC cell", "the fully connected cell that it is compared with"),
    accuracy.PROTOCOL,
    accuracy.DEVICE,
    Column("rule", "Metric", "the number that is compared"),
    Column("unit", "Unit", "%: accuracies in percent; 1e-3: mean square errors, less is better"),
    Column("n", "n", "pairs: seeds run with both heads on the same images"),
    Column("fc", "FC", "mean over those seeds", _PLAIN),
    Column("spinal", "Spinal", "mean over those seeds", _PLAIN),
    Column("difference", "Diff", "mean of Spinal minus FC, seed by seed", _SIGNED),
    Column("low", "95 % from", "lower end of the t interval of that mean", _SIGNED),
    Column("high", "to", "its upper end", _SIGNED),
    Column("p", "p", FLIPS, "{:.4f}".format),
    Column("only_fc", "FC only", ONLY_FC, _IMAGES),
    Column("only_spinal", "Spinal only", "those that the Spinal network alone gets right", _IMAGES),
    Column("mcnemar", "McNemar", MCNEMAR),
    Column("verdict", "Verdict", VERDICT),
    accuracy.MARKS,
)
