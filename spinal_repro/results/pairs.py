"""Two heads on the same data, backbone, recipe and seeds, compared seed by seed."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spinal_repro.records import statistics
from spinal_repro.records.correctness import unpack_correct
from spinal_repro.records.record import Accuracy, Record, RegressionRecord
from spinal_repro.records.statistics import ALPHA, MIN_PAIRS, Paired, as_family, paired
from spinal_repro.results import accuracy
from spinal_repro.results.cells import regression_runs
from spinal_repro.results.outcomes import ResultGroup, Run, grouped
from spinal_repro.results.tables import Column, interval_columns
from spinal_repro.results.verdicts import CHANGED

BETTER, WORSE, OPEN = "better", "worse", "inconclusive"
SIDES = {1: BETTER, -1: WORSE, 0: OPEN}
HASHES = ("train_hash", "test_hash", "split_hash")
Alone = tuple[int, int]  # test images that only the other network gets right, or only ours


@dataclass(frozen=True)
class Pair:
    """A result and that of another cell, usually its FC counterpart, run in the same way."""

    spinal: ResultGroup
    fc: ResultGroup
    seeds: tuple[int, ...]  # that both have on the same images
    first: tuple[float, ...]  # values of the other cell, by seed
    second: tuple[float, ...]  # of the cell
    comparison: Paired
    alternative: Paired  # with the other choice of the epoch
    images: tuple[Alone, ...]  # of each seed whose records hold `correct_bits`
    test_images: int

    @property
    def order(self) -> tuple[int, bool, int]:
        """Sort key of pairs of the same cells: fewest differences, then most seeds, first."""
        return len(self.spinal.differences), bool(self.spinal.numerics), -len(self.seeds)

    @property
    def sign(self) -> int:
        return 1 if self.spinal.cell.regression is None else -1

    @property
    def claimed(self) -> float | None:
        """The difference that the paper claims for these two cells, with its sign."""
        ours, theirs = (side.cell.result.value for side in (self.spinal, self.fc))
        return None if ours is None or theirs is None else round(ours - theirs, 6)

    @property
    def decidable(self) -> bool:
        """Whether there are pairs enough, of runs that follow their cells."""
        return len(self.seeds) >= MIN_PAIRS and not self.spinal.differences

    @property
    def interval(self) -> tuple[float, float] | None:
        """T interval of the mean difference; where there is none, that of the test images."""
        if (found := self.comparison.interval) or not self.images:
            return found
        fc, spinal = (round(statistics.mean(side)) for side in zip(*self.images, strict=True))
        return statistics.image_interval(fc, spinal, self.test_images)

    @property
    def verdict(self) -> str:
        """As `VERDICT` explains."""
        if self.spinal.change:
            return self.spinal.change
        found = SIDES[self.sign * self.comparison.side()]
        return found if found != OPEN else f"{OPEN}: {self.comparison.missing(self.claimed)}"

    @property
    def sensitive(self) -> str:
        found, other = (SIDES[self.sign * p.side()] for p in (self.comparison, self.alternative))
        if found == other or self.spinal.change:
            return ""
        return f"{self.spinal.alternative_metric}: {other}"


def pairs(spinal: Iterable[ResultGroup], fc: Iterable[ResultGroup]) -> list[Pair]:
    """Pair the results of a cell with those of its counterpart that were run in the same way."""
    others = {_settings(result): result for result in fc}
    both = ((others.get(_settings(result)), result) for result in spinal)
    return [pair for other, result in both if other and (pair := _pair(other, result))]


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
    metric, other = spinal.reported_metric, spinal.alternative_metric
    first = tuple(a.value(metric) for a, _ in both)
    second = tuple(b.value(metric) for _, b in both)
    tests = ([run.tested(metric) for run in runs] for runs in both)
    images = tuple(found for tested in tests if (found := compare_images(*tested)))
    tested = both[0][1].tested(metric)
    alternative = paired([a.value(other) for a, _ in both], [b.value(other) for _, b in both])
    return Pair(
        spinal=spinal, fc=fc, seeds=tuple(run.seed for _, run in both), first=first, second=second,
        comparison=paired(first, second), alternative=alternative,
        images=images, test_images=tested.count if tested else 0,
    )  # fmt: skip


def as_families(found: Iterable[Pair]) -> list[Pair]:
    """Adjust the p-values of the comparisons of each table for their number (Holm)."""
    judged = []
    for family in grouped(found, lambda pair: pair.spinal.cell.table).values():
        both = [
            as_family(getattr(p, name) for p in family) for name in ("comparison", "alternative")
        ]
        each = zip(family, *both, strict=True)
        judged += [replace(pair, comparison=a, alternative=b) for pair, a, b in each]
    return judged


def _images(run: Run) -> list[Any]:
    """Hashes of a run's data and split; the regression always has the same."""
    return [run.record.data.get(k) for k in HASHES] if isinstance(run.record, Record) else []


def compare_images(*tested: Accuracy | None) -> Alone | None:
    """Count images that one of two has right alone; None where a record does not keep them."""
    right = [unpack_correct(t.correct_bits, t.count) for t in tested if t and t.correct_bits]
    if len(right) < len(tested):
        return None
    a, b = right
    return int(np.sum(a & ~b)), int(np.sum(b & ~a))


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
        "claimed": pair.claimed,
        "difference": comparison.mean,
        "share": 100 * comparison.higher,
        "p": comparison.p,
        "p_holm": comparison.p_holm,
        "family": comparison.family,
        "verdict": pair.verdict,
        "sensitive": pair.sensitive or None,
    }
    if images:
        found["only_fc"], found["only_spinal"] = map(statistics.mean, zip(*images, strict=True))
        decided = sum(statistics.mcnemar_test(*image) < ALPHA for image in images)
        found["mcnemar"] = f"{decided} of {len(images)}"
    return found | accuracy.ends(pair.interval)


_PLAIN, _SIGNED, _IMAGES = accuracy.number("1e-3"), accuracy.number("1e-3", "+"), "{:.1f}".format
FLIPS = (
    "two-sided sign-flip test of the differences, exact up to 14 pairs; none with fewer than "
    f"{MIN_PAIRS}, which cannot reach {ALPHA:.2f}"
)
HOLM = "p, adjusted for the number of comparisons in its table (Holm)"
SHARE = "share of the seeds in which the cell is higher"
ONLY_FC = "test images that the other network alone gets right, mean over seeds"
ONLY_SPINAL = "those that the network of the cell alone gets right"
MCNEMAR = (
    f"seeds in which those two differ by more than chance (exact test, p < {ALPHA:.2f}), of "
    "seeds whose records keep the images; empty: none does"
)
INTERVAL = (
    "lower end of the 95 % t interval of that mean; with fewer than 3 pairs, or equal "
    "differences, of the interval for the finite test set, which does not cover the seeds"
)
RULE = (
    f"A comparison is decided only with at least {MIN_PAIRS} pairs of runs that follow their "
    "cells, if the 95 % t interval of the mean difference leaves out 0 and the p-value of the "
    f"exact sign-flip test, corrected for all comparisons of its table (Holm), is below {ALPHA:.2f}"
)
VERDICT = (
    f"{CHANGED}: see Differences, no verdict; {BETTER} or {WORSE}: decided; else {OPEN}, with the "
    "number of pairs that would find the claimed difference (the measured one where none is "
    f"claimed) in 80 % of cases, at the measured deviation. {RULE}"
)
COLUMNS = (
    *accuracy.CELL_COLUMNS,
    Column("counterpart", "Other cell", "the cell that it is compared with"),
    accuracy.PROTOCOL,
    accuracy.DEVICE,
    Column("rule", "Metric", "the number that is compared"),
    Column("unit", "Unit", "%: accuracies in percent; 1e-3: mean square errors, less is better"),
    Column("n", "n", "pairs: seeds run with both heads on the same images"),
    Column("fc", "Other", "mean of the other cell over those seeds", _PLAIN),
    Column("spinal", "Ours", "mean of the cell over those seeds", _PLAIN),
    Column("claimed", "Claimed", "published difference of the two cells", _SIGNED),
    Column("difference", "Diff", "mean of the cell minus the other, seed by seed", _SIGNED),
    *interval_columns(INTERVAL, "its upper end", _SIGNED),
    Column("share", "Higher in %", SHARE, "{:.0f}".format),
    Column("p", "p", FLIPS, "{:.4f}".format),
    Column("p_holm", "Holm p", HOLM, "{:.4f}".format),
    Column("family", "Family", "number of comparisons in the table"),
    Column("only_fc", "Other only", ONLY_FC, _IMAGES),
    Column("only_spinal", "Ours only", ONLY_SPINAL, _IMAGES),
    Column("mcnemar", "McNemar", MCNEMAR),
    Column("verdict", "Verdict", VERDICT),
    Column("sensitive", "Sensitivity", accuracy.SENSITIVE),
    accuracy.MARKS,
)
