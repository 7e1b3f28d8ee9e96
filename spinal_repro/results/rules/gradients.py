"""The rule about gradients: the first hidden layer's against the last one's, FC against Spinal."""

import itertools
import math

from spinal_repro.records.record import GradientRecord
from spinal_repro.records.statistics import as_family, mean, paired
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.common import RULES, Judgement, Verdict, all_of, by_side, strength

WHEN = {"start": "at the first step", "epoch": "over the first epoch"}
TINY = 1e-45  # less than any norm but 0


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
    return all_of(by_depth(max(found, key=lambda record: record.seeds)))


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
            f"{'(95 %) ' * (len(ratio) > 1)}{' to '.join(ratio)}{strength(found)}"
        )
        parts.append(Judgement(by_side(found), text, found.n))
    return parts
