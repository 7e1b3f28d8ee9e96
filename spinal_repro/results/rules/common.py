"""What all rules share: verdicts, comparisons of two cells, and the words for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from spinal_repro.registry import Registry
from spinal_repro.results.findings import PROTOCOLS, Findings
from spinal_repro.results.statistics import mean_interval

if TYPE_CHECKING:
    from spinal_repro.paper import Cell
    from spinal_repro.results.cells import CellResult, Run

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
        reduced: Whether those runs had a reduced budget or a changed recipe.
    """

    verdict: str
    evidence: str
    n: int | None = None
    reduced: bool = False

    @property
    def label(self) -> str:
        """The verdict, marked where the budget was reduced."""
        return f"{self.verdict} (reduced budget)" if self.reduced else self.verdict


RULES: Registry[Judgement] = Registry("rule")


def rule(name: str) -> Callable[[Callable[..., Judgement]], Callable[..., Judgement]]:
    """Register a rule: a function of findings whose keyword-only parameters are its options."""
    return RULES.register(name)


@dataclass(frozen=True)
class Comparison:
    """Runs of a cell and of its counterpart with the same seeds, under one protocol.

    Attributes:
        cell: The one that is judged (Spinal).
        other: What it is compared with (FC).
        protocol: Who selected.
        values: Of the cell, by seed, in the unit of its published number.
        others: Of the counterpart, by the same seeds.
        marks: What the runs did differently from their cells; empty: nothing.
    """

    cell: "Cell"
    other: "Cell"
    protocol: str
    values: tuple[float, ...]
    others: tuple[float, ...]
    marks: tuple[str, ...] = ()

    @property
    def differences(self) -> tuple[float, ...]:
        """Cell minus counterpart, seed by seed."""
        return tuple(a - b for a, b in zip(self.values, self.others, strict=True))

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % t interval of the mean difference; None for fewer than two pairs."""
        return mean_interval(self.differences)

    @property
    def verdict(self) -> str:
        """Whether the cell is better: supported, contradicted or inconclusive."""
        if self.marks or self.interval is None:
            return INCONCLUSIVE
        low, high = self.interval
        if lower_is_better(self.cell):
            low, high = -high, -low
        return SUPPORTED if low > 0 else CONTRADICTED if high < 0 else INCONCLUSIVE

    @property
    def text(self) -> str:
        """The figures as a phrase."""
        digits = 3 if lower_is_better(self.cell) else 2
        bounds = "no interval from one pair"
        if self.interval is not None:
            bounds = "95 % interval {:+.{d}f} to {:+.{d}f}".format(*self.interval, d=digits)
        marks = f"; reduced budget: {', '.join(self.marks)}" if self.marks else ""
        return (
            f"{mean(self.values):.{digits}f} against {mean(self.others):.{digits}f} "
            f"(mean of {len(self.values)} paired runs, protocol {self.protocol}): difference "
            f"{mean(self.differences):+.{digits}f}, {bounds}{marks}"
        )


def lower_is_better(cell: "Cell") -> bool:
    """Whether a cell's number is an error."""
    return cell.regression is not None


def full_runs(result: "CellResult") -> tuple["Run", ...]:
    """Runs that did what their cell says; all of them where there is none of those."""
    return tuple(run for run in result.runs if not run.marks) or tuple(result.runs)


def comparisons(findings: Findings, cell: "Cell") -> list[Comparison]:
    """A cell against its counterpart, once for each protocol that both were run under."""
    assert cell.counterpart is not None, cell.name
    other = findings.cell(cell.counterpart)
    found = []
    for protocol in PROTOCOLS:
        ours, theirs = (findings.result(c.name, protocol) for c in (cell, other))
        if ours is None or theirs is None:
            continue
        left, right = ({run.seed: run for run in full_runs(r)} for r in (ours, theirs))
        seeds = sorted(left.keys() & right.keys())
        if not seeds:
            continue
        both = [run for seed in seeds for run in (left[seed], right[seed])]
        found.append(
            Comparison(
                cell,
                other,
                protocol,
                tuple(ours.value(left[seed]) for seed in seeds),
                tuple(theirs.value(right[seed]) for seed in seeds),
                tuple(dict.fromkeys(mark for run in both for mark in run.marks)),
            )
        )
    return found


def compare(findings: Findings, cell: "Cell") -> Judgement:
    """Whether a cell is better than its counterpart.

    The protocol of the paper decides; runs under another one that contradict it make the
    verdict inconclusive.
    """
    found = comparisons(findings, cell)
    if not found:
        return Judgement(NOT_RUN, f"{cell.title}: {missing(findings, cell)}")
    found.sort(key=lambda comparison: bool(comparison.marks))
    first, *rest = found
    verdict = first.verdict
    if any(OPPOSITE.get(other.verdict) == verdict for other in rest):
        verdict = INCONCLUSIVE
    text = f"{cell.title}: " + "; ".join(comparison.text for comparison in found)
    return Judgement(verdict, text, len(first.values), bool(first.marks))


def missing(findings: Findings, cell: "Cell") -> str:
    """Why there is nothing to compare a cell with its counterpart by."""
    assert cell.counterpart is not None
    for side in (cell, findings.cell(cell.counterpart)):
        if side.not_runnable:
            return f"cannot be run here ({side.not_runnable})"
    ran = [
        findings.cell(name).title
        for name in (cell.name, cell.counterpart)
        if any(findings.result(name, protocol) for protocol in PROTOCOLS)
    ]
    return f"only {ran[0]} was run" if len(ran) == 1 else "not run" + published_pair(findings, cell)


def published_pair(findings: Findings, cell: "Cell") -> str:
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
    verdicts = {part.verdict for part in parts}
    if CONTRADICTED in verdicts:
        verdict = CONTRADICTED
    elif verdicts == {SUPPORTED}:
        verdict = SUPPORTED
    else:
        verdict = NOT_RUN if verdicts == {NOT_RUN} else INCONCLUSIVE
    counts = [part.n for part in parts if part.n is not None]
    return Judgement(
        verdict,
        ". ".join(part.evidence for part in parts),
        min(counts, default=None),
        verdict == INCONCLUSIVE and any(part.reduced for part in parts),
    )
