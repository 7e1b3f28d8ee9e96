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
    describe_change,
    has_verdict,
    published,
    rule,
    together,
)
from spinal_repro.results.verdicts import MIN_RUNS, rounding


@rule("mean_above")
def mean_above(findings: ResultsIndex, *, cells: list[str], below: bool = False) -> Judgement:
    """Every cell is better than its counterpart: the interval of the paired difference says so.

    Args:
        cells: Names or patterns of cells that have a counterpart.
        below: Claim the opposite.
    """
    parts = [compare(findings, cell) for cell in findings.with_counterpart(cells)]
    if below:
        parts = [
            Judgement(OPPOSITE.get(p.verdict, p.verdict), p.evidence, p.n, p.changed) for p in parts
        ]
    return all_of(parts)


@rule("above_other")
def above_other(findings: ResultsIndex, *, cell: str, other: str) -> Judgement:
    """A cell is better than a named other one, by the interval of the paired difference."""
    return compare(findings, findings.cell(cell), findings.cell(other))


@rule("same_mean")
def same_mean(findings: ResultsIndex, *, cells: list[str], margin: float) -> Judgement:
    """Every cell is as good as its counterpart.

    Supported where the whole interval of the paired difference lies within the margin,
    contradicted where it lies wholly outside.

    Args:
        cells: Names or patterns of cells that have a counterpart.
        margin: In the unit of the published numbers.
    """
    parts = []
    for cell in findings.with_counterpart(cells):
        part = compare(findings, cell)
        found = findings.compared(cell.name)
        if found and has_verdict(found[0]) and found[0].comparison.interval is not None:
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
        cells: Names or patterns of cells that have a counterpart.
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
        cell: The row of the summary.
        only: Pattern of the names of its cells, where the claim names a network.
    """
    row = findings.cell(cell)
    if row.reference is None or row.reference.value is None:
        raise UserError(f"the cell {cell} has no reference to compare with")
    reference, confidence = row.reference.value, row.reference.confidence
    unsure = rounding(row.reference.unit, confidence) if confidence == "digitised" else 0.0
    names = [name for name in row.best_of if fnmatchcase(name, only)]
    if not names:
        raise UserError(f"none of the cells of {cell} matches '{only}'")
    parts = [_against(findings, name, reference, unsure) for name in names]
    found = [part.verdict for part in parts]
    verdict = found[0] if len(set(found)) == 1 else INCONCLUSIVE
    if SUPPORTED in found:
        verdict = SUPPORTED
    spread = f" ± {unsure:g}, read off a chart" if unsure else ""
    theirs = published(row)
    claimed = "" if theirs is None else f"; published best of SpinalNet {theirs:.2f}"
    evidence = f"reference {reference:.2f}{spread}{claimed}; "
    return together(verdict, evidence + "; ".join(part.evidence for part in parts), parts)


def _against(findings: ResultsIndex, name: str, reference: float, unsure: float) -> Judgement:
    """Whether a cell's mean is above a number that is known to within ``unsure``."""
    title, runs = findings.cell(name).title, findings.runs(name)
    if not runs:
        return Judgement(NOT_RUN, f"{title}: {_not_run(findings, name)}")
    found = runs[0]
    how = changed(found)
    verdict, bounds = INCONCLUSIVE, ""
    if found.n > 1 and found.interval is not None:
        low, high = found.interval
        bounds = f", 95 % interval {low:.2f} to {high:.2f}"
        if not how and found.n >= MIN_RUNS:
            above, below = low > reference + unsure, high < reference - unsure
            verdict = SUPPORTED if above else CONTRADICTED if below else INCONCLUSIVE
    text = f"{title}: mean {found.mean:.2f} of {found.n} runs{bounds}{describe_change(found)}"
    return Judgement(verdict, text, found.n, how)


def _not_run(findings: ResultsIndex, name: str) -> str:
    why = findings.cell(name).not_runnable
    return f"cannot be run here ({why})" if why else "not run"


@rule("reaches")
def reaches(findings: ResultsIndex, *, cell: str, value: float) -> Judgement:
    """A run of a cell reaches a number; runs that do not are no proof that none can.

    Args:
        value: In the unit of the cell.
    """
    runs = findings.runs(cell)
    if not runs:
        return Judgement(NOT_RUN, _not_run(findings, cell))
    found = runs[0]
    best, how = max(found.values), changed(found)
    evidence = f"best of {found.n} runs: {best:.2f} (claimed: {value:g})"
    verdict = SUPPORTED if best >= value and not how else INCONCLUSIVE
    return Judgement(verdict, evidence, found.n, how)
