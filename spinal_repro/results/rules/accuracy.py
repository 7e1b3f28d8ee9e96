"""Rules about accuracy: paired differences over seeds, and numbers to be passed."""

from fnmatch import fnmatchcase

from spinal_repro.errors import UserError
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.common import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_RUN,
    OPPOSITE,
    SUPPORTED,
    Judgement,
    all_of,
    better,
    changed,
    compare,
    decides,
    published,
    rule,
    together,
)
from spinal_repro.results.verdicts import MIN_RUNS, rounding


@rule("mean_above")
def mean_above(findings: ResultsIndex, *, cells: list[str], below: bool = False) -> Judgement:
    """Every cell is better than its counterpart: the interval of the paired difference says so.

    Args:
        findings: Everything known.
        cells: Names or patterns of cells that have a counterpart.
        below: The opposite is claimed.
    """
    parts = [compare(findings, cell) for cell in findings.with_counterpart(cells)]
    if below:
        parts = [
            Judgement(OPPOSITE.get(p.verdict, p.verdict), p.evidence, p.n, p.changed) for p in parts
        ]
    return all_of(parts)


@rule("above_other")
def above_other(findings: ResultsIndex, *, cell: str, other: str) -> Judgement:
    """A cell is better than a named other one, by the interval of the paired difference.

    Args:
        findings: Everything known.
        cell: Name of the one that is claimed to be better.
        other: Name of the one it is compared with, on the same data and backbone.
    """
    return compare(findings, findings.cell(cell), findings.cell(other))


@rule("same_mean")
def same_mean(findings: ResultsIndex, *, cells: list[str], margin: float) -> Judgement:
    """Every cell is as good as its counterpart.

    Supported where the whole interval of the paired difference lies within the margin,
    contradicted where it lies wholly outside.

    Args:
        findings: Everything known.
        cells: Names or patterns of cells that have a counterpart.
        margin: In the unit of the published numbers.
    """
    parts = []
    for cell in findings.with_counterpart(cells):
        part = compare(findings, cell)
        found = findings.compared(cell.name)
        if found and decides(found[0]) and found[0].comparison.interval is not None:
            low, high = found[0].comparison.interval
            within = -margin <= low and high <= margin
            outside = low > margin or high < -margin
            verdict = SUPPORTED if within else CONTRADICTED if outside else INCONCLUSIVE
            text = f"{part.evidence} (the same: within {margin:g})"
            part = Judgement(verdict, text, part.n)
        parts.append(part)
    return all_of(parts)


@rule("wins_of")
def wins_of(findings: ResultsIndex, *, cells: list[str], wins: int) -> Judgement:
    """At least so many of the cells are better than their counterparts.

    Supported where that many intervals of paired differences say so, contradicted where too many
    say the opposite.

    Args:
        findings: Everything known.
        cells: Names or patterns of cells that have a counterpart.
        wins: How many.
    """
    pairs = [(cell, compare(findings, cell)) for cell in findings.with_counterpart(cells)]
    parts = [part for _, part in pairs]
    won, lost, open_, unrun = (
        [cell for cell, part in pairs if part.verdict == verdict]
        for verdict in (SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN)
    )
    if len(unrun) == len(pairs):
        return Judgement(NOT_RUN, f"none of {len(pairs)} run")
    if len(won) >= wins:
        verdict = SUPPORTED
    else:
        verdict = CONTRADICTED if len(pairs) - len(lost) < wins else INCONCLUSIVE
    means = sum(better(found[0]) for cell, _ in pairs if (found := findings.compared(cell.name)))
    evidence = (
        f"of {len(pairs)}, better {len(won)}, worse {len(lost)}, undecided {len(open_)}, "
        f"not run {len(unrun)} (95 % intervals of paired differences); by the mean alone "
        f"better in {means}"
    )
    if lost:
        evidence += f"; worse: {', '.join(cell.title for cell in lost)}"
    return together(verdict, evidence, parts)


@rule("most_above")
def most_above(findings: ResultsIndex, *, cells: list[str]) -> Judgement:
    """More than half of the cells are better than their counterparts (as `wins_of`).

    Args:
        findings: Everything known.
        cells: Names or patterns; those without a counterpart are left out.
    """
    found = findings.with_counterpart(cells)
    return wins_of(findings, cells=[cell.name for cell in found], wins=len(found) // 2 + 1)


@rule("above_reference")
def above_reference(findings: ResultsIndex, *, cell: str, only: str = "*") -> Judgement:
    """One of the cells that a row of the summary is the best of is above its reference.

    Supported where the 95 % interval of a cell's mean lies above it, contradicted where every
    cell was run and each interval lies below it.

    Args:
        findings: Everything known.
        cell: Name of the summary's row.
        only: Pattern that the cells' names must match, where the claim names a network.
    """
    row = findings.cell(cell)
    if row.reference is None or row.reference.value is None:
        raise UserError(f"the cell {cell} names no reference to be above of")
    reference, confidence = row.reference.value, row.reference.confidence
    unsure = rounding(row.reference.unit, confidence) if confidence == "digitised" else 0.0
    names = [name for name in row.best_of if fnmatchcase(name, only)]
    if not names:
        raise UserError(f"none of the cells of {cell} is called '{only}'")
    parts = [_against(findings, name, reference, unsure) for name in names]
    found = [part.verdict for part in parts]
    if SUPPORTED in found:
        verdict = SUPPORTED
    else:
        verdict = found[0] if len(set(found)) == 1 else INCONCLUSIVE
    spread = f" ± {unsure:g}, read off a chart" if unsure else ""
    theirs = published(row)
    claimed = "" if theirs is None else f"; published best of SpinalNet {theirs:.2f}"
    evidence = f"reference {reference:.2f}{spread}{claimed}; "
    return together(verdict, evidence + "; ".join(part.evidence for part in parts), parts)


def _against(findings: ResultsIndex, name: str, reference: float, unsure: float) -> Judgement:
    """Whether a cell's mean is above a number that is known to within ``unsure``."""
    cell = findings.cell(name)
    runs = findings.runs(name)
    if not runs:
        why = f"cannot be run here ({cell.not_runnable})" if cell.not_runnable else "not run"
        return Judgement(NOT_RUN, f"{cell.title}: {why}")
    found = runs[0]
    said = changed(found)
    verdict, bounds = INCONCLUSIVE, ""
    if found.n > 1 and found.interval is not None:
        low, high = found.interval
        bounds = f", 95 % interval {low:.2f} to {high:.2f}"
        if not said and found.n >= MIN_RUNS:
            above, below = low > reference + unsure, high < reference - unsure
            verdict = SUPPORTED if above else CONTRADICTED if below else INCONCLUSIVE
    marks = f"; {said}: {', '.join(found.marks)}" if said else ""
    text = f"{cell.title}: mean {found.mean:.2f} of {found.n} runs{bounds}{marks}"
    return Judgement(verdict, text, found.n, said)


@rule("reaches")
def reaches(findings: ResultsIndex, *, cell: str, value: float) -> Judgement:
    """A run of a cell reaches a number; runs that do not are no proof that none can.

    Args:
        findings: Everything known.
        cell: Name of the cell.
        value: The number, in the unit of the cell.
    """
    runs = findings.runs(cell)
    if not runs:
        why = findings.cell(cell).not_runnable
        return Judgement(NOT_RUN, f"cannot be run here ({why})" if why else "not run")
    found = runs[0]
    best, said = max(found.values), changed(found)
    evidence = f"best of {found.n} runs: {best:.2f} (claimed: {value:g})"
    verdict = SUPPORTED if best >= value and not said else INCONCLUSIVE
    return Judgement(verdict, evidence, found.n, said)
