"""Shared by all rules: verdicts, comparing two cells, combining parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from spinal_repro.paper.cells import Cell
from spinal_repro.records.statistics import Paired, mean
from spinal_repro.registry import Registry
from spinal_repro.results.accuracy import bounds, decimals
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import ResultGroup
from spinal_repro.results.pairs import Pair


class Verdict(StrEnum):
    """Verdict on a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not run"
    UNDECIDABLE = "not decidable here"  # by no number of runs

    @classmethod
    def of(cls, supported: bool, contradicted: bool) -> "Verdict":
        if supported:
            return cls.SUPPORTED
        return cls.CONTRADICTED if contradicted else cls.INCONCLUSIVE

    @property
    def opposite(self) -> "Verdict":
        sides = {Verdict.SUPPORTED: Verdict.CONTRADICTED, Verdict.CONTRADICTED: Verdict.SUPPORTED}
        return sides.get(self, self)


@dataclass(frozen=True)
class Judgement:
    """Verdict of a rule, and a sentence with the computed numbers."""

    verdict: Verdict
    evidence: str
    n: int | None = None  # runs of each side; None where the rule needs no runs
    changed: str = ""  # "changed recipe" if those runs differ from their cells

    @property
    def label(self) -> str:
        return f"{self.verdict} ({self.changed})" if self.changed else self.verdict


# A rule is a function of the index; its keyword-only parameters are its options.
RULES: Registry[Judgement] = Registry("rule")


def by_side(comparison: Paired, above: float = 0.0, sign: int = 1) -> Verdict:
    """Verdict on "the mean gain is more than ``above``"; with ``sign`` -1 less is a gain."""
    side = sign * comparison.side(sign * above)
    return Verdict.of(side > 0, side < 0)


def strength(comparison: Paired, claimed: float | None = None) -> str:
    """``, corrected p 0.012``, and the pairs that are needed where it decides nothing."""
    p = "" if comparison.p_holm is None else f", corrected p {comparison.p_holm:.2g}"
    return p if comparison.side() else f"{p}, {comparison.missing(claimed)}"


def compare(
    findings: ResultsIndex, cell: Cell, other: Cell | None = None, worse_by: float = 0.0
) -> Judgement:
    """Verdict on "a cell is better than its counterpart", or than another cell.

    The paper's protocol decides; contradicting runs under another protocol make it inconclusive.
    Up to ``worse_by`` worse, in the unit of the published numbers, counts as better.
    """
    found = findings.compared(cell.name, other.name if other else None)
    if not found:
        why = _why_not_compared(findings, cell) if other is None else "not run"
        return Judgement(Verdict.NOT_RUN, f"{cell.title}: {why}")
    verdict, *others = (
        by_side(pair.comparison, -worse_by, pair.sign) if pair.decidable else Verdict.INCONCLUSIVE
        for pair in found
    )
    if verdict != verdict.opposite and verdict.opposite in others:
        verdict = Verdict.INCONCLUSIVE
    beside = "" if other is None else f" against {other.head}"
    text = f"{cell.title}{beside}: " + "; ".join(map(_describe, found))
    return Judgement(verdict, text, len(found[0].seeds), found[0].spinal.change)


def _describe(pair: Pair) -> str:
    digits, n = decimals(pair.spinal.published.unit), len(pair.seeds)
    within = bounds(pair.interval, f"+.{digits}f")
    return (
        f"{mean(pair.second):.{digits}f} against {mean(pair.first):.{digits}f} "
        f"({n} pair{'s' * (n > 1)}, protocol {pair.spinal.setting}): difference "
        f"{pair.comparison.mean:+.{digits}f}{within}{strength(pair.comparison, pair.claimed)}"
        f"{describe_change(pair.spinal)}"
    )


def describe_change(result: ResultGroup) -> str:
    """``; changed recipe: recipe.lr 0.1 instead of 0.01``, or empty without differences."""
    how = result.change
    return f"; {how}: {', '.join(map(str, result.differences))}" if how else ""


def not_run(*cells: Cell) -> str:
    """Why there are no runs of cells."""
    why = next((cell.not_runnable for cell in cells if cell.not_runnable), None)
    return f"cannot be run here ({why})" if why else Verdict.NOT_RUN


def _why_not_compared(findings: ResultsIndex, cell: Cell) -> str:
    assert cell.counterpart is not None
    sides = cell, findings.cell(cell.counterpart)
    ran = [side.title for side in sides if findings.runs(side.name)]
    ours, theirs = (side.result.value for side in sides)
    if (why := not_run(*sides)) != Verdict.NOT_RUN:
        return why
    if len(ran) == 1:
        return f"only {ran[0]} was run"
    return why if None in (ours, theirs) else f"{why} (published: {ours} against {theirs})"


def most(found: Sequence[Verdict], wins: int | None = None) -> Verdict:
    """Verdict on "so many of these hold", by default more than half; not run where none was run."""
    wins, lost = wins or len(found) // 2 + 1, found.count(Verdict.CONTRADICTED)
    if found.count(Verdict.NOT_RUN) == len(found):
        return Verdict.NOT_RUN
    return Verdict.of(found.count(Verdict.SUPPORTED) >= wins, len(found) - lost < wins)


def combine(parts: Sequence[Judgement], decides: Verdict) -> Verdict:
    """Verdict on several parts: ``decides`` where one has it, else the one of all of them."""
    found = {part.verdict for part in parts}
    if decides in found:
        return decides
    return found.pop() if len(found) == 1 else Verdict.INCONCLUSIVE


def all_of(parts: Sequence[Judgement]) -> Judgement:
    """Judge parts: supported where every part is, contradicted where one is."""
    verdict = combine(parts, Verdict.CONTRADICTED)
    return together(verdict, "; ".join(part.evidence for part in parts), parts)


def together(verdict: Verdict, evidence: str, parts: Sequence[Judgement]) -> Judgement:
    """Build the judgement of several parts; n is the smallest."""
    n = min((part.n for part in parts if part.n is not None), default=None)
    how = next((part.changed for part in parts if part.changed), "")
    return Judgement(verdict, evidence, n, how if verdict == Verdict.INCONCLUSIVE else "")
