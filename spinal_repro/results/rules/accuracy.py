"""Rules about accuracy: paired differences over seeds, and thresholds."""

from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase

from spinal_repro.errors import UserError
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.common import (
    RULES,
    Judgement,
    Verdict,
    all_of,
    better,
    bounds,
    by_interval,
    combine,
    compare,
    decisive,
    describe_change,
    not_run,
    published,
    together,
)
from spinal_repro.results.verdicts import MIN_RUNS, rounding


@RULES.register("mean_above")
def mean_above(findings: ResultsIndex, *, cells: list[str], below: bool = False) -> Judgement:
    """Every cell is better than its counterpart, by the interval of the paired difference.

    Args:
        below: Claim the opposite.
    """
    parts = [compare(findings, cell) for cell in findings.with_counterpart(cells)]
    if below:
        parts = [replace(part, verdict=part.verdict.opposite) for part in parts]
    return all_of(parts)


@RULES.register("above_other")
def above_other(findings: ResultsIndex, *, cell: str, other: str) -> Judgement:
    """A cell is better than a named other one, by the interval of the paired difference."""
    return compare(findings, findings.cell(cell), findings.cell(other))


@RULES.register("same_mean")
def same_mean(findings: ResultsIndex, *, cells: list[str], margin: float) -> Judgement:
    """Every cell is as good as its counterpart.

    Supported if the interval of the paired difference lies within the margin, contradicted if it
    lies outside.

    Args:
        margin: In the unit of the published numbers.
    """
    parts = []
    for cell in findings.with_counterpart(cells):
        part = compare(findings, cell)
        found = findings.compared(cell.name)
        if found and (interval := decisive(found[0])) is not None:
            low, high = interval
            outside = low > margin or high < -margin
            verdict = Verdict.of(-margin <= low and high <= margin, outside)
            text = f"{part.evidence} (the same: within {margin:g})"
            part = Judgement(verdict, text, part.n)
        parts.append(part)
    return all_of(parts)


@RULES.register("wins_of")
def wins_of(findings: ResultsIndex, *, cells: list[str], wins: int) -> Judgement:
    """At least so many of the cells are better than their counterparts.

    Supported if the intervals of so many paired differences are above 0, contradicted if too many
    are below.
    """
    compared = findings.with_counterpart(cells)
    parts = [compare(findings, cell) for cell in compared]
    total, count = len(parts), Counter(part.verdict for part in parts)
    if count[Verdict.NOT_RUN] == total:
        return Judgement(Verdict.NOT_RUN, f"none of {total} run")
    won, lost = count[Verdict.SUPPORTED], count[Verdict.CONTRADICTED]
    verdict = Verdict.of(won >= wins, total - lost < wins)
    means = sum(better(found[0]) for cell in compared if (found := findings.compared(cell.name)))
    evidence = (
        f"of {total}, better {won}, worse {lost}, undecided {count[Verdict.INCONCLUSIVE]}, "
        f"not run {count[Verdict.NOT_RUN]} (95 % intervals of paired differences); by the mean "
        f"alone better in {means}"
    )
    if lost:
        each = zip(compared, parts, strict=True)
        worse = [cell.title for cell, part in each if part.verdict == Verdict.CONTRADICTED]
        evidence += f"; worse: {', '.join(worse)}"
    return together(verdict, evidence, parts)


@RULES.register("most_above")
def most_above(findings: ResultsIndex, *, cells: list[str]) -> Judgement:
    """More than half of the cells are better than their counterparts (as `wins_of`)."""
    found = findings.with_counterpart(cells)
    return wins_of(findings, cells=[cell.name for cell in found], wins=len(found) // 2 + 1)


@RULES.register("above_reference")
def above_reference(findings: ResultsIndex, *, cell: str, only: str = "*") -> Judgement:
    """One of the cells behind a row of the summary is above the reference of that row.

    Supported if the 95 % interval of a cell's mean lies above it, contradicted if every cell was
    run and each interval lies below it.

    Args:
        cell: The row of the summary.
        only: Pattern of cell names, if the claim is about one network.
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
    spread = f" ± {unsure:g}, read off a chart" if unsure else ""
    theirs = published(row)
    claimed = "" if theirs is None else f"; published best of SpinalNet {theirs:.2f}"
    evidence = f"reference {reference:.2f}{spread}{claimed}; "
    evidence += "; ".join(part.evidence for part in parts)
    return together(combine(parts, Verdict.SUPPORTED), evidence, parts)


def _against(findings: ResultsIndex, name: str, reference: float, unsure: float) -> Judgement:
    """Whether a cell's mean is above a number that is known to within ``unsure``."""
    title, runs = findings.cell(name).title, findings.runs(name)
    if not runs:
        return Judgement(Verdict.NOT_RUN, f"{title}: {not_run(findings.cell(name))}")
    found = runs[0]
    interval = found.interval if found.n > 1 else None  # of one run: not over seeds
    counts = found.n >= MIN_RUNS and not found.change
    verdict = by_interval(interval if counts else None, reference, unsure)
    text = (
        f"{title}: mean {found.mean:.2f} of {found.n} runs{bounds(interval, '.2f')}"
        f"{describe_change(found)}"
    )
    return Judgement(verdict, text, found.n, found.change)


@RULES.register("reaches")
def reaches(findings: ResultsIndex, *, cell: str, value: float) -> Judgement:
    """A run of a cell reaches a number; if none does, the verdict is inconclusive.

    Args:
        value: In the unit of the cell.
    """
    runs = findings.runs(cell)
    if not runs:
        return Judgement(Verdict.NOT_RUN, not_run(findings.cell(cell)))
    found = runs[0]
    best = max(found.values)
    evidence = f"best of {found.n} runs: {best:.2f} (claimed: {value:g})"
    verdict = Verdict.of(best >= value and not found.change, False)
    return Judgement(verdict, evidence, found.n, found.change)


@RULES.register("most_above_others")
def most_above_others(findings: ResultsIndex, *, pairs: dict[str, str]) -> Judgement:
    """In more than half of the pairs the first cell is better than the second (as `wins_of`)."""
    parts = [compare(findings, *map(findings.cell, pair)) for pair in pairs.items()]
    count, most = Counter(part.verdict for part in parts), len(parts) // 2 + 1
    lost = len(parts) - count[Verdict.CONTRADICTED] < most
    verdict = Verdict.of(count[Verdict.SUPPORTED] >= most, lost)
    if count[Verdict.NOT_RUN] == len(parts):
        verdict = Verdict.NOT_RUN
    return together(verdict, "; ".join(part.evidence for part in parts), parts)
