"""Rules about whole training curves: the test accuracy and loss after every epoch."""

from spinal_repro.records.compare import BUDGET, EPOCHS
from spinal_repro.records.record import AnyRecord, Record
from spinal_repro.records.statistics import mean, paired
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import PAPER
from spinal_repro.results.rules.common import (
    RULES,
    Judgement,
    Verdict,
    bounds,
    by_interval,
)
from spinal_repro.results.verdicts import MIN_RUNS, REDUCED

Curve = tuple[float, ...]
NO_CURVES = Judgement(
    Verdict.NOT_RUN, "not run under the paper's protocol"
)  # only it tests every epoch


def _curve(record: AnyRecord, quantity: str) -> Curve:
    """Test accuracy (percent) or loss after each epoch; empty where it was not measured."""
    history = record.history if isinstance(record, Record) else []
    if any(f"test_{quantity}" not in epoch for epoch in history):
        return ()
    scale = 100.0 if quantity == "accuracy" else 1.0
    return tuple(scale * epoch[f"test_{quantity}"] for epoch in history)


def curves(findings: ResultsIndex, cell: str, quantity: str) -> dict[int, Curve]:
    """Collect, by seed, the curves of a cell's runs that differ from it at most in their length."""
    found: dict[int, Curve] = {}
    for result in findings.runs(cell, PAPER):
        only_shorter = all((d.key, d.kind) == (EPOCHS, BUDGET) for d in result.differences)
        for run in result.runs if only_shorter and not result.numerics else ():
            values = _curve(run.record, quantity)
            if len(values) > len(found.get(run.seed, ())):
                found[run.seed] = values
    return found


def _paired_curves(
    findings: ResultsIndex, cells: list[str], quantity: str
) -> tuple[list[Curve], list[Curve]]:
    """Curves of a cell's runs and of its counterpart's, with the same seeds, equally long."""
    best: tuple[list[Curve], list[Curve]] = ([], [])
    longest = 0
    for cell in findings.with_counterpart(cells):
        assert cell.counterpart is not None
        ours, theirs = (curves(findings, side, quantity) for side in (cell.name, cell.counterpart))
        lengths = {s: min(len(ours[s]), len(theirs[s])) for s in sorted(ours.keys() & theirs)}
        length = max(lengths.values(), default=0)
        if length > longest:
            longest = length
            seeds = [seed for seed in lengths if lengths[seed] == length]
            best = ([ours[s][:length] for s in seeds], [theirs[s][:length] for s in seeds])
    return best


@RULES.register("above_at_each_epoch")
def above_at_each_epoch(
    findings: ResultsIndex, *, cells: list[str], quantity: str, epochs: int
) -> Judgement:
    """A cell is better than its counterpart after every epoch.

    Supported if the 95 % interval of the paired difference is above 0 at every epoch,
    contradicted if it is below 0 at one of them.

    Args:
        cells: Of the same training with different numbers of epochs; the longest is taken.
        epochs: With fewer, the verdict is at most inconclusive.
    """
    ours, theirs = _paired_curves(findings, cells, quantity)
    if not ours:
        return NO_CURVES
    if quantity == "loss":  # less is better
        ours, theirs = theirs, ours
    by_epoch = [
        paired(a, b)
        for a, b in zip(zip(*theirs, strict=True), zip(*ours, strict=True), strict=True)
    ]
    found = [by_interval(epoch.interval) for epoch in by_epoch]
    worse = [epoch for epoch, word in enumerate(found, 1) if word == Verdict.CONTRADICTED]
    clear, above = found.count(Verdict.SUPPORTED), sum(epoch.mean > 0 for epoch in by_epoch)
    ran, n = len(by_epoch), len(ours)
    evidence = (
        f"{quantity} better by the mean of {n} paired runs after {above} of {ran} epochs, by the "
        f"95 % interval after {clear}; worse by the interval after {len(worse)}"
        + (f" (epochs {', '.join(map(str, worse))})" if worse else "")
    )
    return _by_curves(Verdict.of(clear == ran, bool(worse)), evidence, n, ran, epochs)


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
    found = paired(first, second)
    evidence = (
        f"{level:g} % reached after {mean(first):.2f} epochs against {mean(second):.2f} "
        f"(means of {n} paired runs): {found.mean:+.2f} epochs sooner{bounds(found.interval)}"
    )
    everyone = max(*first, *second) <= ran
    return _by_curves(by_interval(found.interval), evidence, n, ran, ran if everyone else epochs)


def _reached(values: Curve, level: float) -> int:
    """Return the first epoch at the level, or the number of epochs plus one."""
    return next((i for i, value in enumerate(values, 1) if value >= level), len(values) + 1)


def _by_curves(verdict: Verdict, evidence: str, n: int, ran: int, wanted: int) -> Judgement:
    """Judge ``n`` pairs; inconclusive if they are too few or shorter than wanted."""
    if n < MIN_RUNS or ran < wanted:
        verdict = Verdict.INCONCLUSIVE
    if ran >= wanted:
        return Judgement(verdict, evidence, n)
    return Judgement(verdict, f"{evidence}; {REDUCED}: {ran} of {wanted} epochs", n, REDUCED)
