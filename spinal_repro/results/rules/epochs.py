"""Rules about the course of training: accuracy and loss after every epoch, and gradients."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from spinal_repro.records.record import AnyRecord, GradientRecord, Record
from spinal_repro.records.statistics import Paired, as_family, mean, paired
from spinal_repro.results.accuracy import bounds
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import PAPER
from spinal_repro.results.rules import common
from spinal_repro.results.rules.common import RULES, Judgement, Verdict

Curve = tuple[float, ...]
CURVE_RULES = "above_early", "sooner"
WHEN = {"start": "at the first step", "epoch": "over the first epoch"}
TINY = 1e-45  # less than any norm but 0
# Only that protocol tests every epoch.
NO_CURVES = Judgement(Verdict.NOT_RUN, "not run under the paper's protocol")


def _curve(record: AnyRecord, quantity: str) -> Curve:
    """Test accuracy (percent) or loss after each epoch; empty where it was not measured."""
    history = record.history if isinstance(record, Record) else []
    if any(f"test_{quantity}" not in epoch for epoch in history):
        return ()
    scale = 100.0 if quantity == "accuracy" else 1.0
    return tuple(scale * epoch[f"test_{quantity}"] for epoch in history)


def curves(findings: ResultsIndex, cell: str, quantity: str) -> dict[int, Curve]:
    """Collect the curves of a cell's runs by seed."""
    as_published = (r for r in findings.runs(cell, PAPER) if not r.differences and not r.numerics)
    found: dict[int, Curve] = {}
    for run in (run for result in as_published for run in result.runs):
        if curve := _curve(run.record, quantity):
            found.setdefault(run.seed, curve)
    return found


def _paired_curves(
    findings: ResultsIndex, cells: list[str], quantity: str, epochs: int | None = None
) -> tuple[list[Curve], list[Curve]]:
    """Curves of cells and of their counterparts, by seed, of that length or of the longest."""
    found: dict[int, tuple[Curve, Curve]] = {}
    for cell in findings.with_counterpart(cells):
        assert cell.counterpart is not None
        ours, theirs = (curves(findings, side, quantity) for side in (cell.name, cell.counterpart))
        for seed in ours.keys() & theirs:
            length = min(len(ours[seed]), len(theirs[seed]))
            if seed not in found or length > len(found[seed][0]):
                found[seed] = ours[seed][:length], theirs[seed][:length]
    longest = max((len(curve) for curve, _ in found.values()), default=0)
    length = min(longest, epochs or longest)
    pairs = [found[seed] for seed in sorted(found) if len(found[seed][0]) >= length]
    return [curve[:length] for curve, _ in pairs], [curve[:length] for _, curve in pairs]


@RULES.register("above_early")
def above_early(
    findings: ResultsIndex, *, cells: list[str], quantity: str, early: int
) -> Judgement:
    """A cell is better than its counterpart in early epochs, on average over them.

    Supported if the mean over the early epochs is decided to be higher, contradicted if lower. The
    evidence has the means over all epochs too.

    Args:
        cells: Of the same training with different numbers of epochs; by seed the longest counts.
        early: Number of epochs; with fewer, the verdict is at most inconclusive.
    """
    texts, form = [], ".4f" if quantity == "loss" else ".2f"
    for epochs in (None, early):
        sides = _paired_curves(findings, cells, quantity, epochs)
        if not sides[0]:
            return NO_CURVES
        ours, theirs = ([mean(curve) for curve in side] for side in sides)
        found, n, ran = _of_curves(findings, theirs, ours), len(ours), len(sides[0][0])
        texts.append(
            f"over the first {ran} epochs {mean(ours):{form}} against {mean(theirs):{form}} "
            f"({n} pairs): difference {found.mean:+{form}}"
            f"{bounds(found.interval, '+' + form)}"
        )
    evidence = f"{quantity} {texts[1]}{common.strength(found)}; {texts[0]}"
    verdict = common.by_side(found, sign=-1 if quantity == "loss" else 1)
    return _by_curves(verdict, evidence, n, ran, early)


@RULES.register("sooner")
def sooner(findings: ResultsIndex, *, cells: list[str], level: float, epochs: int) -> Judgement:
    """A cell reaches a test accuracy in fewer epochs than its counterpart.

    A run that never reaches it counts with its number of epochs plus one.

    Args:
        level: Test accuracy in percent.
        epochs: With fewer, the verdict is at most inconclusive unless every run reached the level.
    """
    ours, theirs = _paired_curves(findings, cells, "accuracy")
    if not ours:
        return NO_CURVES
    n, ran = len(ours), len(ours[0])
    first, second = ([_reached(c, level) for c in side] for side in (ours, theirs))
    found = _of_curves(findings, first, second)
    evidence = (
        f"{level:g} % reached after {mean(first):.2f} epochs against {mean(second):.2f} "
        f"(means of {n} paired runs): {found.mean:+.2f} epochs sooner"
        f"{bounds(found.interval)}{common.strength(found)}"
    )
    everyone = max(*first, *second) <= ran
    return _by_curves(common.by_side(found), evidence, n, ran, ran if everyone else epochs)


def _reached(values: Curve, level: float) -> int:
    return next((i for i, value in enumerate(values, 1) if value >= level), len(values) + 1)


def _of_curves(findings: ResultsIndex, first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare paired runs, corrected for the number of claims about curves (Bonferroni)."""
    found = paired(first, second)
    family = sum(claim.rule in CURVE_RULES for claim in findings.claims)
    return replace(found, family=max(family, 1)) if found.p is not None else found


def _by_curves(verdict: Verdict, evidence: str, n: int, ran: int, wanted: int) -> Judgement:
    """Judge ``n`` pairs; inconclusive if they are shorter than wanted."""
    if ran >= wanted:
        return Judgement(verdict, evidence, n)
    return Judgement(Verdict.INCONCLUSIVE, f"{evidence}; only {ran} of {wanted} epochs", n)


@RULES.register("gradient_at_first_layer")
def gradient_at_first_layer(findings: ResultsIndex, *, init: str) -> Judgement:
    """The gradient vanishes less in Spinal than in FC stacks of every depth, on MNIST.

    Compared is the norm at the first hidden layer as a share of that at the last one: the ratio of
    both stacks' shares, paired by seed, at the first step and over the first epoch. Supported if
    it is decided to be above 1 for every depth, contradicted if it is below for one.

    Args:
        init: Initial weights, as in ``spinal gradients --init``.
    """
    found = [r for r in findings.gradients if (r.dataset, r.init) == ("mnist", init)]
    if not found:
        return Judgement(Verdict.NOT_RUN, Verdict.NOT_RUN)
    return common.all_of(by_depth(max(found, key=lambda record: record.seeds)))


def by_depth(record: GradientRecord) -> list[Judgement]:
    """Judge each depth, at the first step and over the first epoch."""
    in_order = sorted(record.runs, key=lambda run: run.seed)
    logs: dict[tuple[int, str], dict[str, list[float]]] = {}
    for depth, (key, when) in itertools.product(record.depths, WHEN.items()):
        sides = logs.setdefault((depth, when), {"fc": [], "spinal": []})
        for run in (run for run in in_order if run.depth == depth):
            first, *_, last = (max(norm, TINY) for norm in getattr(run, key))
            sides[run.net].append(math.log10(first / last))
    family = as_family(paired(sides["fc"], sides["spinal"]) for sides in logs.values())
    parts = []
    for ((depth, when), sides), found in zip(logs.items(), family, strict=True):
        numbers = *map(mean, sides.values()), *(found.interval or [found.mean])
        fc, spinal, *ratio = [f"{float(f'{10**value:.2g}'):g}" for value in numbers]
        text = (
            f"{depth} layers {when}: FC {fc}, Spinal {spinal} of the last layer's norm, ratio "
            f"{'(95 %) ' * (len(ratio) > 1)}{' to '.join(ratio)}{common.strength(found)}"
        )
        parts.append(Judgement(common.by_side(found), text, found.n))
    return parts
