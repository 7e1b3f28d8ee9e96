"""The rule about gradients: the first hidden layer's against the last one's, FC against Spinal."""

import itertools
import math

from spinal_repro.records.record import GradientRecord
from spinal_repro.records.statistics import mean, paired
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.common import RULES, Judgement, Verdict, all_of, by_interval
from spinal_repro.results.verdicts import MIN_RUNS

WHEN = {"start": "at the first step", "epoch": "over the first epoch"}
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
    parts, in_order = [], sorted(record.runs, key=lambda run: run.seed)
    for depth, (key, when) in itertools.product(record.depths, WHEN.items()):
        logs: dict[str, list[float]] = {"fc": [], "spinal": []}
        for run in (run for run in in_order if run.depth == depth):
            first, *_, last = (max(norm, TINY) for norm in getattr(run, key))
            logs[run.net].append(math.log10(first / last))
        found, n = paired(logs["fc"], logs["spinal"]), len(logs["fc"])
        ratio = found.interval or (found.mean,)
        shares = [f"{float(f'{10**v:.2g}'):g}" for v in (*map(mean, logs.values()), *ratio)]
        text = "{} layers {}: FC {}, Spinal {} of the last layer's norm, ratio "
        text += "(95 %) {} to {}" if found.interval else "{} (one seed: no interval)"
        verdict = by_interval(found.interval if n >= MIN_RUNS else None)
        parts.append(Judgement(verdict, text.format(depth, when, *shares), n))
    return parts
