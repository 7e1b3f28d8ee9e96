"""The rule about gradients: the first hidden layer's against the last one's, FC against Spinal."""

import math

from spinal_repro.records.record import GradientRecord
from spinal_repro.records.statistics import mean, paired
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.common import RULES, Judgement, Verdict, all_of, by_interval
from spinal_repro.results.verdicts import MIN_RUNS

TINY = 1e-45  # less than any norm but 0


@RULES.register("gradient_at_first_layer")
def gradient_at_first_layer(findings: ResultsIndex, *, init: str) -> Judgement:
    """The gradient vanishes less in Spinal than in FC stacks of every depth, on MNIST.

    Compared is the norm at the first hidden layer as a share of that at the last one. Supported
    if the interval of the ratio of both stacks' shares, paired by seed, is above 1 for every depth,
    at the first step and over the first epoch; contradicted if one is below.

    Args:
        init: Initial weights, as in ``spinal gradients --init``.
    """
    found = [r for r in findings.gradients if (r.dataset, r.init) == ("mnist", init)]
    if not found:
        return Judgement(Verdict.NOT_RUN, Verdict.NOT_RUN)
    return all_of(by_depth(max(found, key=lambda record: record.seeds)))


def by_depth(record: GradientRecord) -> list[Judgement]:
    """Judge each depth, at the first step and over the first epoch."""
    parts = []
    for depth in record.depths:
        runs = sorted((r for r in record.runs if r.depth == depth), key=lambda run: run.seed)
        for key, when in (("start", "at the first step"), ("epoch", "over the first epoch")):
            shares: dict[str, list[float]] = {"fc": [], "spinal": []}  # logarithms
            for run in runs:
                first, *_, last = (max(norm, TINY) for norm in getattr(run, key))
                shares[run.net].append(math.log10(first / last))
            found = paired(shares["fc"], shares["spinal"])
            verdict = by_interval(found.interval if len(found.differences) >= MIN_RUNS else None)
            spinal, fc, low, high = (
                10**value
                for value in (
                    mean(shares["spinal"]),
                    mean(shares["fc"]),
                    *(found.interval or (found.mean,) * 2),
                )
            )
            evidence = (
                f"{depth} layers {when}: {spinal:.2g} of the last layer's norm against {fc:.2g}, "
                f"{low:.2g} to {high:.2g} times as much"
            )
            parts.append(Judgement(verdict, evidence, len(found.differences)))
    return parts
