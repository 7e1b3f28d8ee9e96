"""Rules about whole training curves: the test accuracy and loss after every epoch."""

from spinal_repro.records.compare import BUDGET, EPOCHS
from spinal_repro.records.record import Record
from spinal_repro.records.statistics import Paired, mean, paired
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import PAPER, Run
from spinal_repro.results.rules.common import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_RUN,
    SUPPORTED,
    Judgement,
    rule,
)
from spinal_repro.results.verdicts import MIN_RUNS, REDUCED

Curve = tuple[float, ...]
BETTER = {"accuracy": 1, "loss": -1}


def curve(run: Run, quantity: str) -> Curve:
    """A run's test accuracy (percent) or loss after each epoch; empty where it was not measured."""
    history = run.record.history if isinstance(run.record, Record) else []
    if any(f"test_{quantity}" not in epoch for epoch in history):
        return ()
    scale = 100.0 if quantity == "accuracy" else 1.0
    return tuple(scale * epoch[f"test_{quantity}"] for epoch in history)


def curves(findings: ResultsIndex, cell: str, quantity: str) -> dict[int, Curve]:
    """Curves by seed of a cell's runs that differ from it in fewer epochs at most."""
    found: dict[int, Curve] = {}
    for result in findings.runs(cell, PAPER):  # it measures test accuracy after every epoch
        only_shorter = all((d.key, d.kind) == (EPOCHS, BUDGET) for d in result.differences)
        if result.numerics or not only_shorter:
            continue
        for run in result.runs:
            values = curve(run, quantity)
            if len(values) > len(found.get(run.seed, ())):
                found[run.seed] = values
    return found


def paired_curves(
    findings: ResultsIndex, cells: list[str], quantity: str
) -> tuple[list[Curve], list[Curve]]:
    """Curves of a cell's runs and of its counterpart's, with the same seeds, equally long.

    Args:
        cells: Cells of the same training with different numbers of epochs; the one with the
            longest curves is taken.
    """
    best: tuple[list[Curve], list[Curve]] = ([], [])
    for cell in findings.with_counterpart(cells):
        assert cell.counterpart is not None
        ours, theirs = (curves(findings, side, quantity) for side in (cell.name, cell.counterpart))
        seeds = sorted(ours.keys() & theirs.keys())
        longest = max((min(len(ours[s]), len(theirs[s])) for s in seeds), default=0)
        seeds = [s for s in seeds if min(len(ours[s]), len(theirs[s])) == longest]
        if longest > (len(best[0][0]) if best[0] else 0):
            best = ([ours[s][:longest] for s in seeds], [theirs[s][:longest] for s in seeds])
    return best


@rule("above_at_each_epoch")
def above_at_each_epoch(
    findings: ResultsIndex, *, cells: list[str], quantity: str, epochs: int
) -> Judgement:
    """A cell is better than its counterpart after every epoch.

    Supported where the 95 % interval of the paired difference says so at every epoch,
    contradicted where it says the opposite at one.

    Args:
        cells: See `paired_curves`.
        quantity: ``accuracy`` or ``loss``.
        epochs: With fewer, the verdict is at most inconclusive.
    """
    ours, theirs = paired_curves(findings, cells, quantity)
    if not ours:
        return Judgement(NOT_RUN, "not run under the paper's protocol")
    sign = BETTER[quantity]
    by_epoch = [
        paired([sign * c[i] for c in theirs], [sign * c[i] for c in ours])
        for i in range(len(ours[0]))
    ]
    clear = [i for i, p in enumerate(by_epoch, 1) if p.interval and p.interval[0] > 0]
    worse = [i for i, p in enumerate(by_epoch, 1) if p.interval and p.interval[1] < 0]
    above = sum(p.mean > 0 for p in by_epoch)
    ran, n = len(by_epoch), len(ours)
    verdict = SUPPORTED if len(clear) == ran else CONTRADICTED if worse else INCONCLUSIVE
    reduced = ran < epochs
    if reduced or n < MIN_RUNS:
        verdict = INCONCLUSIVE
    evidence = (
        f"{quantity} better by the mean of {n} paired runs after {above} of {ran} epochs, by the "
        f"95 % interval after {len(clear)}; worse by the interval after {len(worse)}"
        + (f" (epochs {', '.join(map(str, worse))})" if worse else "")
        + (f"; reduced budget: {ran} of {epochs} epochs" if reduced else "")
    )
    return Judgement(verdict, evidence, n, REDUCED if reduced else "")


@rule("sooner")
def sooner(findings: ResultsIndex, *, cells: list[str], level: float, epochs: int) -> Judgement:
    """A cell reaches a test accuracy in fewer epochs than its counterpart.

    A run that never reaches it counts as one epoch more than it had.

    Args:
        cells: See `paired_curves`.
        level: Test accuracy in percent.
        epochs: With fewer, the verdict is at most inconclusive unless every run reached the level.
    """
    ours, theirs = paired_curves(findings, cells, "accuracy")
    if not ours:
        return Judgement(NOT_RUN, "not run under the paper's protocol")
    first = [[_reached(c, level) for c in side] for side in (ours, theirs)]
    found: Paired = paired(first[0], first[1])
    everyone = all(when <= len(ours[0]) for side in first for when in side)
    reduced = len(ours[0]) < epochs and not everyone
    verdict = INCONCLUSIVE
    bounds = ""
    if found.interval is not None:
        low, high = found.interval
        bounds = f", 95 % interval {low:+.2f} to {high:+.2f}"
        if not reduced and len(ours) >= MIN_RUNS:
            verdict = SUPPORTED if low > 0 else CONTRADICTED if high < 0 else INCONCLUSIVE
    evidence = (
        f"{level:g} % reached after {mean(first[0]):.2f} epochs against {mean(first[1]):.2f} "
        f"(means of {len(ours)} paired runs): {found.mean:+.2f} epochs sooner{bounds}"
        + (f"; reduced budget: {len(ours[0])} of {epochs} epochs" if reduced else "")
    )
    return Judgement(verdict, evidence, len(ours), REDUCED if reduced else "")


def _reached(values: Curve, level: float) -> int:
    """The first epoch at which a curve is at the level, or one more than there are."""
    return next((i for i, value in enumerate(values, 1) if value >= level), len(values) + 1)
