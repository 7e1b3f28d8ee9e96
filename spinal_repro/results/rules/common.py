"""What all rules share: verdicts, comparisons of two cells, and the words for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spinal_repro.records.statistics import mean
from spinal_repro.registry import Registry
from spinal_repro.results import verdicts
from spinal_repro.results.accuracy import decimals
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.pairs import FEW, SPINAL_HIGHER, SPINAL_LOWER

if TYPE_CHECKING:
    from spinal_repro.paper.cells import Cell
    from spinal_repro.results.cells import ResultGroup
    from spinal_repro.results.pairs import Pair

SUPPORTED, CONTRADICTED = "supported", "contradicted"
INCONCLUSIVE, NOT_RUN = "inconclusive", "not run"
VERDICTS = (SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN)
OPPOSITE = {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED}


@dataclass(frozen=True)
class Judgement:
    """What a rule makes of the findings.

    Attributes:
        verdict: One of `VERDICTS`.
        evidence: A sentence with the computed figures.
        n: Runs of each side that it rests on; None where no run is needed.
        changed: Whether those runs differ from their cells: ``reduced budget``, ``changed
            recipe`` or empty.
    """

    verdict: str
    evidence: str
    n: int | None = None
    changed: str = ""

    @property
    def label(self) -> str:
        """The verdict, with what was changed in the runs that it rests on."""
        return f"{self.verdict} ({self.changed})" if self.changed else self.verdict


RULES: Registry[Judgement] = Registry("rule")


def rule(name: str) -> Callable[[Callable[..., Judgement]], Callable[..., Judgement]]:
    """Register a rule: a function of findings whose keyword-only parameters are its options."""
    return RULES.register(name)


def lower_is_better(cell: "Cell") -> bool:
    """Whether a cell's number is an error."""
    return cell.regression is not None


def changed(result: "ResultGroup") -> str:
    """``reduced budget``, ``changed recipe``, or empty where runs did what their cell says."""
    if not result.marks:
        return ""
    return verdicts.REDUCED if result.reduced else verdicts.CHANGED


def decides(pair: "Pair") -> bool:
    """Whether there are enough pairs, and all as their cells say."""
    return not pair.spinal.marks and pair.verdict not in (FEW, verdicts.REDUCED)


def better(pair: "Pair") -> bool:
    """Whether the cell's mean is better than its counterpart's, by however little."""
    mean = pair.comparison.mean
    return mean < 0 if lower_is_better(pair.spinal.cell) else mean > 0


def direction(pair: "Pair") -> str:
    """Whether the interval of the mean difference says that the cell is better."""
    if not decides(pair):
        return INCONCLUSIVE
    found = {SPINAL_HIGHER: SUPPORTED, SPINAL_LOWER: CONTRADICTED}.get(pair.verdict, INCONCLUSIVE)
    return OPPOSITE.get(found, found) if lower_is_better(pair.spinal.cell) else found


def describe(pair: "Pair") -> str:
    """The figures of a pair as a phrase."""
    digits = decimals(pair.spinal.unit)
    bounds = "no interval from one pair"
    if pair.comparison.interval is not None:
        low, high = pair.comparison.interval
        bounds = f"95 % interval {low:+.{digits}f} to {high:+.{digits}f}"
    said = changed(pair.spinal)
    marks = f"; {said}: {', '.join(pair.spinal.marks)}" if said else ""
    n = len(pair.seeds)
    return (
        f"{mean(pair.second):.{digits}f} against {mean(pair.first):.{digits}f} "
        f"({n} pair{'s' * (n > 1)}, protocol {pair.spinal.setting}): difference "
        f"{pair.comparison.mean:+.{digits}f}, {bounds}{marks}"
    )


def compare(findings: ResultsIndex, cell: "Cell", other: "Cell | None" = None) -> Judgement:
    """Whether a cell is better than its counterpart, or than another cell in its place.

    The protocol of the paper decides; runs under another one that contradict it make the
    verdict inconclusive.
    """
    found = findings.compared(cell.name, None if other is None else other.name)
    if not found:
        why = missing(findings, cell) if other is None else "not run"
        return Judgement(NOT_RUN, f"{cell.title}: {why}")
    first, *rest = sorted(found, key=lambda pair: bool(pair.spinal.marks))
    verdict = direction(first)
    if any(direction(other) == OPPOSITE.get(verdict) for other in rest):
        verdict = INCONCLUSIVE
    beside = "" if other is None else f" against {other.head}"
    text = f"{cell.title}{beside}: " + "; ".join(describe(pair) for pair in (first, *rest))
    return Judgement(verdict, text, len(first.seeds), changed(first.spinal))


def missing(findings: ResultsIndex, cell: "Cell") -> str:
    """Why there is nothing to compare a cell with its counterpart by."""
    assert cell.counterpart is not None
    for side in (cell, findings.cell(cell.counterpart)):
        if side.not_runnable:
            return f"cannot be run here ({side.not_runnable})"
    ran = [
        findings.cell(name).title for name in (cell.name, cell.counterpart) if findings.runs(name)
    ]
    return f"only {ran[0]} was run" if len(ran) == 1 else "not run" + published_pair(findings, cell)


def published_pair(findings: ResultsIndex, cell: "Cell") -> str:
    """What was published of a cell and its counterpart, in brackets; empty where nothing was."""
    assert cell.counterpart is not None
    values = [published(side) for side in (cell, findings.cell(cell.counterpart))]
    if any(value is None for value in values):
        return ""
    return " (published: {} against {})".format(*values)


def published(cell: "Cell") -> float | None:
    """The published number that a cell is compared with."""
    return cell.published[0].value if cell.published else None


def all_of(parts: Sequence[Judgement]) -> Judgement:
    """Supported where every part is, contradicted where one is."""
    found = {part.verdict for part in parts}
    if CONTRADICTED in found:
        verdict = CONTRADICTED
    elif found == {SUPPORTED}:
        verdict = SUPPORTED
    else:
        verdict = NOT_RUN if found == {NOT_RUN} else INCONCLUSIVE
    return together(verdict, "; ".join(part.evidence for part in parts), parts)


def together(verdict: str, evidence: str, parts: Sequence[Judgement]) -> Judgement:
    """A verdict on several parts: n is the smallest, and changed runs are named as such."""
    counts = [part.n for part in parts if part.n is not None]
    changed = [part.changed for part in parts if part.changed]
    said = changed[0] if changed and verdict == INCONCLUSIVE else ""
    return Judgement(verdict, evidence, min(counts, default=None), said)
