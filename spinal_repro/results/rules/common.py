"""Shared by all rules: verdicts, comparing two cells, and the text of evidence."""

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
    from spinal_repro.results.outcomes import ResultGroup
    from spinal_repro.results.pairs import Pair

SUPPORTED, CONTRADICTED = "supported", "contradicted"
INCONCLUSIVE, NOT_RUN = verdicts.INCONCLUSIVE, verdicts.NOT_RUN
VERDICTS = (SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN)
OPPOSITE = {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED}


@dataclass(frozen=True)
class Judgement:
    """Verdict of a rule, and a sentence with the computed figures."""

    verdict: str  # one of VERDICTS
    evidence: str
    n: int | None = None  # runs of each side; None where the rule needs no runs
    changed: str = ""  # "reduced budget" or "changed recipe" if those runs differ from their cells

    @property
    def label(self) -> str:
        """The verdict, and how the runs differ from their cells."""
        return f"{self.verdict} ({self.changed})" if self.changed else self.verdict


RULES: Registry[Judgement] = Registry("rule")


def rule(name: str) -> Callable[[Callable[..., Judgement]], Callable[..., Judgement]]:
    """Register a rule: a function of the index whose keyword-only parameters are its options."""
    return RULES.register(name)


def lower_is_better(cell: "Cell") -> bool:
    """Whether a cell's number is an error, not an accuracy."""
    return cell.regression is not None


def changed(result: "ResultGroup") -> str:
    """``reduced budget``, ``changed recipe``, or empty where the runs do not differ."""
    if not result.differences:
        return ""
    return verdicts.REDUCED if result.reduced else verdicts.CHANGED


def has_verdict(pair: "Pair") -> bool:
    """Whether there are enough pairs of runs that do not differ from their cells."""
    return not pair.spinal.differences and pair.verdict not in (FEW, verdicts.REDUCED)


def better(pair: "Pair") -> bool:
    """Whether the cell's mean is better than its counterpart's, by any amount."""
    difference = pair.comparison.mean
    return difference < 0 if lower_is_better(pair.spinal.cell) else difference > 0


def direction(pair: "Pair") -> str:
    """Verdict on "the cell is better" by the interval of the mean difference."""
    if not has_verdict(pair):
        return INCONCLUSIVE
    found = {SPINAL_HIGHER: SUPPORTED, SPINAL_LOWER: CONTRADICTED}.get(pair.verdict, INCONCLUSIVE)
    return OPPOSITE.get(found, found) if lower_is_better(pair.spinal.cell) else found


def describe(pair: "Pair") -> str:
    """Figures of a pair as text."""
    digits = decimals(pair.spinal.unit)
    bounds = "no interval from one pair"
    if pair.comparison.interval is not None:
        low, high = pair.comparison.interval
        bounds = f"95 % interval {low:+.{digits}f} to {high:+.{digits}f}"
    n = len(pair.seeds)
    return (
        f"{mean(pair.second):.{digits}f} against {mean(pair.first):.{digits}f} "
        f"({n} pair{'s' * (n > 1)}, protocol {pair.spinal.setting}): difference "
        f"{pair.comparison.mean:+.{digits}f}, {bounds}{describe_change(pair.spinal)}"
    )


def describe_change(result: "ResultGroup") -> str:
    """``; reduced budget: 2 of 8 epochs``, or empty where the runs do not differ."""
    how = changed(result)
    return f"; {how}: {', '.join(map(str, result.differences))}" if how else ""


def compare(findings: ResultsIndex, cell: "Cell", other: "Cell | None" = None) -> Judgement:
    """Verdict on "a cell is better than its counterpart", or than another cell.

    The paper's protocol decides; contradicting runs under another protocol make it inconclusive.
    """
    found = findings.compared(cell.name, None if other is None else other.name)
    if not found:
        why = missing(findings, cell) if other is None else "not run"
        return Judgement(NOT_RUN, f"{cell.title}: {why}")
    first, *rest = sorted(found, key=lambda pair: bool(pair.spinal.differences))
    verdict = direction(first)
    if any(direction(other) == OPPOSITE.get(verdict) for other in rest):
        verdict = INCONCLUSIVE
    beside = "" if other is None else f" against {other.head}"
    text = f"{cell.title}{beside}: " + "; ".join(describe(pair) for pair in (first, *rest))
    return Judgement(verdict, text, len(first.seeds), changed(first.spinal))


def missing(findings: ResultsIndex, cell: "Cell") -> str:
    """Why a cell and its counterpart cannot be compared."""
    assert cell.counterpart is not None
    for side in (cell, findings.cell(cell.counterpart)):
        if side.not_runnable:
            return f"cannot be run here ({side.not_runnable})"
    ran = [
        findings.cell(name).title for name in (cell.name, cell.counterpart) if findings.runs(name)
    ]
    return f"only {ran[0]} was run" if len(ran) == 1 else "not run" + published_pair(findings, cell)


def published_pair(findings: ResultsIndex, cell: "Cell") -> str:
    """Published numbers of a cell and its counterpart in brackets, where both are known."""
    assert cell.counterpart is not None
    values = [published(side) for side in (cell, findings.cell(cell.counterpart))]
    if any(value is None for value in values):
        return ""
    return " (published: {} against {})".format(*values)


def published(cell: "Cell") -> float | None:
    """The published number to compare with."""
    return cell.published[0].value if cell.published else None


def all_of(parts: Sequence[Judgement]) -> Judgement:
    """Combine verdicts: supported where every part is, contradicted where one is."""
    found = {part.verdict for part in parts}
    if CONTRADICTED in found:
        verdict = CONTRADICTED
    elif found == {SUPPORTED}:
        verdict = SUPPORTED
    else:
        verdict = NOT_RUN if found == {NOT_RUN} else INCONCLUSIVE
    return together(verdict, "; ".join(part.evidence for part in parts), parts)


def together(verdict: str, evidence: str, parts: Sequence[Judgement]) -> Judgement:
    """Judge several parts together: n is the smallest."""
    counts = [part.n for part in parts if part.n is not None]
    how = next((part.changed for part in parts if part.changed), "")
    n = min(counts, default=None)
    return Judgement(verdict, evidence, n, how if verdict == INCONCLUSIVE else "")
