"""FC against Spinal: the same data, backbone, recipe and seeds, compared seed by seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spinal_repro.records import statistics
from spinal_repro.records.correctness import unpack_correct
from spinal_repro.records.record import Record
from spinal_repro.records.statistics import Paired, mcnemar_test, paired
from spinal_repro.results.accuracy import DEVICE, MARKS, PROTOCOL, WHO, number
from spinal_repro.results.outcomes import LAST, ResultGroup, Run
from spinal_repro.results.tables import Column
from spinal_repro.results.verdicts import MIN_RUNS, REDUCED

ALPHA = 1 - statistics.LEVEL
FEW, NONE_SHOWN = "too few pairs", "no difference shown"
SPINAL_HIGHER, SPINAL_LOWER = "Spinal higher", "Spinal lower"
HASHES = ("train_hash", "test_hash", "split_hash")


@dataclass(frozen=True)
class McNemarCounts:
    """Test images on which the two networks of one seed differ, with McNemar's p-value."""

    only_fc: int
    only_spinal: int
    p: float


@dataclass(frozen=True)
class Pair:
    """A Spinal result beside its fully connected counterpart, run in the same way.

    ``first`` and ``second`` are the FC and the Spinal values of the seeds that both have on the
    same images; ``images`` has an entry for each seed whose records hold `correct_bits`.
    """

    spinal: ResultGroup
    fc: ResultGroup
    seeds: tuple[int, ...]
    first: tuple[float, ...]
    second: tuple[float, ...]
    comparison: Paired
    images: tuple[McNemarCounts, ...]

    @property
    def verdict(self) -> str:
        """A direction if the t interval of the difference leaves out 0; never equality."""
        if self.spinal.reduced:
            return REDUCED
        if len(self.seeds) < MIN_RUNS or self.comparison.interval is None:
            return FEW
        low, high = self.comparison.interval
        if low > 0:
            return SPINAL_HIGHER
        return SPINAL_LOWER if high < 0 else NONE_SHOWN


def pairs(
    results: Sequence[ResultGroup], counterparts: Mapping[str, str] | None = None
) -> list[Pair]:
    """Pair every result with the result of its counterpart that was run in the same way.

    Args:
        counterparts: Which cell is compared with which, by name; by default as the cells say.
    """
    by_key = {_key(result.cell.name, result): result for result in results if result.runs}
    found = []
    for result in results:
        cell = result.cell
        other = cell.counterpart if counterparts is None else counterparts.get(cell.name)
        if not result.runs or other is None:
            continue
        fc = by_key.get(_key(other, result))
        pair = None if fc is None else _pair(fc, result)
        if pair is not None:
            found.append(pair)
    return found


def _key(name: str, result: ResultGroup) -> tuple[Any, ...]:
    run = result.runs[0]
    return name, result.protocol, run.device, run.precision, run.differences


def _pair(fc: ResultGroup, spinal: ResultGroup) -> Pair | None:
    others = {run.seed: run for run in fc.runs}
    both = [(others[run.seed], run) for run in spinal.runs if run.seed in others]
    both = [(a, b) for a, b in both if _same_images(a, b)]
    if not both:
        return None
    metric = spinal.reported_metric
    first = tuple(a.value(metric) for a, _ in both)
    second = tuple(b.value(metric) for _, b in both)
    images = [_compare_images(a, b, metric) for a, b in both]
    return Pair(
        spinal,
        fc,
        tuple(b.seed for _, b in both),
        first,
        second,
        paired(first, second),
        tuple(image for image in images if image is not None),
    )


def _same_images(a: Run, b: Run) -> bool:
    """Whether two runs read the same data in the same split; the regression always does."""
    if not isinstance(a.record, Record) or not isinstance(b.record, Record):
        return True
    return all(a.record.data.get(key) == b.record.data.get(key) for key in HASHES)


def _compare_images(fc: Run, spinal: Run, metric: str) -> McNemarCounts | None:
    """Compare two runs image by image, where both records hold `correct_bits`."""
    found = []
    for run in (fc, spinal):
        if not isinstance(run.record, Record) or run.record.test is None:
            return None
        test = run.record.test.last if metric == LAST else run.record.test.selected
        if test.correct_bits is None:
            return None
        found.append(unpack_correct(test.correct_bits, test.count))
    a, b = found
    only_fc, only_spinal = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    return McNemarCounts(only_fc, only_spinal, mcnemar_test(only_fc, only_spinal))


def row(pair: Pair) -> dict[str, Any]:
    """Turn a pair into a row of the table."""
    comparison, cell, images = pair.comparison, pair.spinal.cell, pair.images
    run = pair.spinal.runs[0]
    low, high = comparison.interval or (None, None)
    significant = sum(image.p < ALPHA for image in images)
    return {
        "cell": cell.name,
        "dataset": cell.dataset,
        "backbone": cell.backbone,
        "head": cell.head,
        "counterpart": pair.fc.cell.name,
        "protocol": pair.spinal.protocol,
        "device": f"{run.device} {run.precision}",
        "rule": pair.spinal.reported_metric,
        "unit": pair.spinal.unit,
        "n": len(pair.seeds),
        "fc": statistics.mean(pair.first),
        "spinal": statistics.mean(pair.second),
        "difference": comparison.mean,
        "low": low,
        "high": high,
        "p": comparison.p,
        "only_fc": _mean(image.only_fc for image in images),
        "only_spinal": _mean(image.only_spinal for image in images),
        "mcnemar": f"{significant} of {len(images)}" if images else None,
        "verdict": pair.verdict,
        "marks": "; ".join(map(str, pair.spinal.differences)),
    }


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.mean(found) if found else None


_PLAIN, _SIGNED = number("1e-3"), number("1e-3", "+")

COLUMNS = (
    *WHO,
    Column("counterpart", "FC cell", "the fully connected cell that it is compared with"),
    PROTOCOL,
    DEVICE,
    Column("rule", "Shown", "which number is compared, on both sides"),
    Column("unit", "Unit", "%: accuracies in percent; 1e-3: mean square errors, less is better"),
    Column("n", "n", "pairs: seeds run with both heads on the same images"),
    Column("fc", "FC", "mean over those seeds", _PLAIN),
    Column("spinal", "Spinal", "mean over those seeds", _PLAIN),
    Column("difference", "Diff", "mean of Spinal minus FC, seed by seed", _SIGNED),
    Column("low", "95 % from", "lower end of the t interval of that mean", _SIGNED),
    Column("high", "to", "its upper end", _SIGNED),
    Column(
        "p",
        "p",
        "two-sided sign-flip test of the differences, exact up to "
        f"{statistics.EXACT_PAIRS} pairs; it cannot fall below 2 / 2^n, which for 5 pairs is 0.062",
        lambda value: f"{value:.4f}",
    ),
    Column(
        "only_fc",
        "FC only",
        "test images that the FC network alone gets right, mean over seeds",
        lambda value: f"{value:.1f}",
    ),
    Column(
        "only_spinal",
        "Spinal only",
        "those that the Spinal network alone gets right",
        lambda value: f"{value:.1f}",
    ),
    Column(
        "mcnemar",
        "McNemar",
        f"seeds in which those two differ by more than chance (exact test, p < {ALPHA:.2f}), of "
        "seeds whose records keep the images; empty: none does",
    ),
    Column(
        "verdict",
        "Verdict",
        f"{SPINAL_HIGHER} or {SPINAL_LOWER}: the t interval leaves out 0; {NONE_SHOWN}: it does "
        f"not, which is not equality; {FEW}: below {MIN_RUNS}; {REDUCED}: the sign of Diff is a "
        "direction and no more",
    ),
    MARKS,
)
