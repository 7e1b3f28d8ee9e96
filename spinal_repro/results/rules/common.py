"""What all rules share: verdicts, comparisons of two cells, and the words for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from spinal_repro.registry import Registry
from spinal_repro.results import verdicts
from spinal_repro.results.findings import PROTOCOLS, Findings
from spinal_repro.results.statistics import Paired, mean, paired
from spinal_repro.results.verdicts import MIN_RUNS

if TYPE_CHECKING:
    from spinal_repro.paper import Cell
    from spinal_repro.results.cells import CellResult

SUPPORTED, CONTRADICTED = "supported", "contradicted"
INCONCLUSIVE, NOT_RUN = "inconclusive", "not run"
VERDICTS = (SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN)
CHANGES = {True: verdicts.REDUCED, False: verdicts.CHANGED}  # by whether the budget is smaller
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
        reduced: Whether that makes them shorter or smaller.
    """

    cell: "Cell"
    other: "Cell"
    protocol: str
    values: tuple[float, ...]
    others: tuple[float, ...]
    marks: tuple[str, ...] = ()
    reduced: bool = False

    @cached_property
    def paired(self) -> Paired:
        """Cell minus counterpart, seed by seed."""
        return paired(self.others, self.values)

    @property
    def decides(self) -> bool:
        """Whether there are enough pairs, and all as the cells say."""
        return not self.marks and len(self.values) >= MIN_RUNS

    @property
    def changed(self) -> str:
        """``reduced budget``, ``changed recipe``, or empty."""
        return CHANGES[self.reduced] if self.marks else ""

    @property
    def better(self) -> bool:
        """Whether the mean is, by however little."""
        return self.paired.mean < 0 if lower_is_better(self.cell) else self.paired.mean > 0

    @property
    def verdict(self) -> str:
        """Whether the interval of the mean difference says that the cell is better."""
        if not self.decides or self.paired.interval is None:
            return INCONCLUSIVE
        low, high = self.paired.interval
        if lower_is_better(self.cell):
            low, high = -high, -low
        return SUPPORTED if low > 0 else CONTRADICTED if high < 0 else INCONCLUSIVE

    @property
    def text(self) -> str:
        """The figures as a phrase."""
        digits = 3 if lower_is_better(self.cell) else 2
        bounds = "no interval from one pair"
        if self.paired.interval is not None:
            low, high = self.paired.interval
            bounds = f"95 % interval {low:+.{digits}f} to {high:+.{digits}f}"
        marks = f"; {self.changed}: {', '.join(self.marks)}" if self.marks else ""
        return (
            f"{mean(self.values):.{digits}f} against {mean(self.others):.{digits}f} "
            f"(mean of {len(self.values)} paired runs, protocol {self.protocol}): difference "
            f"{self.paired.mean:+.{digits}f}, {bounds}{marks}"
        )


def lower_is_better(cell: "Cell") -> bool:
    """Whether a cell's number is an error."""
    return cell.regression is not None


def comparisons(findings: Findings, cell: "Cell") -> list[Comparison]:
    """A cell against its counterpart, once for each protocol that both were run under.

    Runs on one kind of device and in one precision are compared, those with the fewest changes
    from their cells and then the most pairs.
    """
    assert cell.counterpart is not None, cell.name
    other = findings.cell(cell.counterpart)
    found = []
    for protocol in PROTOCOLS:
        candidates = [
            comparison
            for ours in findings.runs(cell.name, protocol)
            for theirs in findings.runs(other.name, protocol)
            if (comparison := _compare_runs(ours, theirs)) is not None
        ]
        if candidates:
            found.append(min(candidates, key=lambda c: (len(c.marks), -len(c.values))))
    return found


def _compare_runs(ours: "CellResult", theirs: "CellResult") -> Comparison | None:
    """Equal runs of two cells, seed by seed; None where they do not go together."""
    first, second = ours.runs[0], theirs.runs[0]
    if (first.device, first.precision) != (second.device, second.precision):
        return None
    left, right = (dict(zip(_seeds(r), r.values, strict=True)) for r in (ours, theirs))
    seeds = sorted(left.keys() & right.keys())
    if not seeds:
        return None
    return Comparison(
        ours.cell,
        theirs.cell,
        ours.protocol,
        tuple(left[seed] for seed in seeds),
        tuple(right[seed] for seed in seeds),
        tuple(dict.fromkeys((*ours.marks, *theirs.marks))),
        ours.reduced or theirs.reduced,
    )


def _seeds(result: "CellResult") -> list[int]:
    return [run.seed for run in result.runs]


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
    return Judgement(verdict, text, len(first.values), first.changed)


def missing(findings: Findings, cell: "Cell") -> str:
    """Why there is nothing to compare a cell with its counterpart by."""
    assert cell.counterpart is not None
    for side in (cell, findings.cell(cell.counterpart)):
        if side.not_runnable:
            return f"cannot be run here ({side.not_runnable})"
    ran = [
        findings.cell(name).title for name in (cell.name, cell.counterpart) if findings.runs(name)
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
