"""Rules about accuracy: paired differences over seeds, and thresholds."""

import math
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase

from spinal_repro.data.catalog import find_entry
from spinal_repro.errors import UserError
from spinal_repro.paper.cells import Cell
from spinal_repro.records.statistics import binomial_interval, mean_interval
from spinal_repro.results.accuracy import bounds
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.joint import describe
from spinal_repro.results.rules import common
from spinal_repro.results.rules.common import RULES, Judgement, Verdict
from spinal_repro.results.verdicts import rounding


@RULES.register("mean_above")
def mean_above(findings: ResultsIndex, *, cells: list[str], below: bool = False) -> Judgement:
    """Every cell is better than its counterpart, as decided in the table of pairs."""
    parts = [common.compare(findings, cell) for cell in findings.with_counterpart(cells)]
    if below:
        parts = [replace(part, verdict=part.verdict.opposite) for part in parts]
    return common.all_of(parts)


@RULES.register("above_other")
def above_other(findings: ResultsIndex, *, cell: str, other: str) -> Judgement:
    """A cell is better than a named other one, as decided in the table of pairs."""
    return common.compare(findings, findings.cell(cell), findings.cell(other))


@RULES.register("same_mean")
def same_mean(findings: ResultsIndex, *, cells: list[str], margin: float) -> Judgement:
    """Every cell is as good as its counterpart.

    Supported if the interval of the paired difference lies within the margin, contradicted if the
    difference is decided to be outside.
    """
    parts = []
    for cell in findings.with_counterpart(cells):
        part = common.compare(findings, cell)
        if found := findings.compared(cell.name):
            decidable, comparison = found[0].decidable, found[0].comparison
            low, high = comparison.interval or (-math.inf, math.inf)
            outside = comparison.side(margin) > 0 or comparison.side(-margin) < 0
            within = -margin <= low and high <= margin
            verdict = Verdict.of(decidable and within, decidable and outside)
            text = f"{part.evidence} (the same: within {margin:g})"
            part = replace(part, verdict=verdict, evidence=text)
        parts.append(part)
    return common.all_of(parts)


@RULES.register("wins_of")
def wins_of(findings: ResultsIndex, *, readings: dict[str, list[str]], wins: int) -> Judgement:
    """At least so many of the cells are better than their counterparts (as `wins_among`).

    The verdict is that of every reading of the original, or inconclusive where they differ.
    """
    parts = [wins_among(findings, cells, wins) for cells in readings.values()]
    each = zip(readings, parts, strict=True)
    evidence = "; ".join(f"{name}: {part.verdict}, {part.evidence}" for name, part in each)
    if len({part.verdict for part in parts}) > 1:
        evidence += "; the answer depends on the reading"
    return common.together(common.combine(parts, Verdict.INCONCLUSIVE), evidence, parts)


def wins_among(findings: ResultsIndex, cells: list[str], wins: int | None = None) -> Judgement:
    """Judge whether so many cells, by default more than half, are better; as `most`."""
    compared = findings.with_counterpart(cells)
    parts = [common.compare(findings, cell) for cell in compared]
    total, count = len(parts), Counter(part.verdict for part in parts)
    verdict = common.most([part.verdict for part in parts], wins)
    if verdict == Verdict.NOT_RUN:
        return Judgement(verdict, f"none of {total} run")
    won, lost = count[Verdict.SUPPORTED], count[Verdict.CONTRADICTED]
    pairs = [pair for cell in compared for pair in findings.compared(cell.name)[:1]]
    means = sum(pair.sign * pair.comparison.mean > 0 for pair in pairs)
    evidence = (
        f"of {total}, better {won}, worse {lost}, undecided {count[Verdict.INCONCLUSIVE]}, "
        f"not run {count[Verdict.NOT_RUN]}; by the mean alone better in {means}"
    )
    if lost:
        each = zip(compared, parts, strict=True)
        worse = [cell.name for cell, part in each if part.verdict == Verdict.CONTRADICTED]
        evidence += f"; worse: {', '.join(worse)}"
    return common.together(verdict, evidence + describe(pairs), parts)


@RULES.register("most_above")
def most_above(findings: ResultsIndex, *, cells: list[str]) -> Judgement:
    """More than half of the cells are better than their counterparts (as `wins_among`)."""
    return wins_among(findings, cells)


@RULES.register("above_reference")
def above_reference(findings: ResultsIndex, *, cell: str, only: str = "*") -> Judgement:
    """A cell behind a row of the summary is above the reference, the best result of others.

    Supported if the interval of its mean is above it, contradicted if even its best run is below.
    A distance of no more than the 95 % interval of one accuracy on this test set, and of what the
    reference may be off, decides nothing. A published lead that small is not decidable.

    Args:
        cell: The row of the summary, named after its data set.
        only: Pattern of cell names, if the claim is about one network.
    """
    row = findings.cell(cell)
    names = [name for name in row.best_of if fnmatchcase(name, only)]
    if not names:
        raise UserError(f"none of the cells of {cell} matches '{only}'")
    reference, unsure, lead, evidence = _lead(findings, row)
    images = find_entry(cell.partition("/")[2]).sizes["test"]
    assert images is not None  # every published data set has a size
    low, high = binomial_interval(round(images * reference / 100), images)
    half = max(100 * high - reference, reference - 100 * low)
    evidence += (
        f"; of {images:,} test images one is {100 / images:.4f} points, the 95 % interval of one "
        f"accuracy is ± {half:.2f}"
    )
    parts = [_best_run(findings, name, reference, half + unsure) for name in names]
    verdict = common.combine(parts, Verdict.SUPPORTED)
    if abs(lead) <= half + unsure:
        evidence += ": the published lead is below the resolution of the test set"
        if verdict in (Verdict.INCONCLUSIVE, Verdict.NOT_RUN):
            verdict = Verdict.UNDECIDABLE
    evidence = "; ".join([evidence, *(part.evidence for part in parts)])
    return common.together(verdict, evidence, parts)


def _lead(findings: ResultsIndex, row: Cell) -> tuple[float, float, float, str]:
    """Reference of a row of the summary, how far it may be off, the published lead, and a text."""
    cells = (row, *map(findings.cell, row.best_of))
    ours = [value for of in cells if (value := of.result.value)]
    if not ours or row.reference is None or row.reference.value is None:
        raise UserError(f"the cell {row.name} has no published number and reference to compare")
    reference, confidence = row.reference.value, row.reference.confidence
    unsure = rounding(row.reference.unit, confidence)
    how = f" ± {unsure:g}, read off a chart" if confidence == "digitised" else ""
    lead = max(ours) - reference
    text = f"published {max(ours):.2f}, {lead:+.2f} against the best of others {reference:.2f}{how}"
    return reference, unsure, lead, text


def _best_run(findings: ResultsIndex, name: str, reference: float, unsure: float) -> Judgement:
    """Whether a cell's mean is above a number, or its best run below, by more than ``unsure``."""
    title, runs = findings.cell(name).title, findings.runs(name)
    if not runs:
        return Judgement(Verdict.NOT_RUN, f"{title}: {common.not_run(findings.cell(name))}")
    found, best = runs[0], max(runs[0].values)
    interval = mean_interval(found.values)
    above, below = interval and interval[0] > reference + unsure, best < reference - unsure
    decides = interval is not None and not found.change
    verdict = Verdict.of(bool(decides and above), decides and below)
    text = (
        f"{title}: best of {found.n} runs {best:.2f}, {best - reference:+.2f}; mean "
        f"{found.mean:.2f}, {found.mean - reference:+.2f}{bounds(interval, '.2f')}"
        f"{common.describe_change(found)}"
    )
    return Judgement(verdict, text, found.n, found.change)


@RULES.register("placing")
def placing(findings: ResultsIndex, *, cell: str, top: int, outside: bool = False) -> Judgement:
    """The published result of a row of the summary is among the ``top`` best of its time.

    Of the others only the best is known here, so this is decided for a result above it alone.
    """
    _, unsure, lead, evidence = _lead(findings, findings.cell(cell))
    first, second = lead > unsure, lead < -unsure
    if first or (second and top == 1):
        return Judgement(Verdict.of(first != outside, True), evidence)
    why = "how many others are above it takes the list of results of June 2020, which is not here"
    return Judgement(Verdict.UNDECIDABLE, f"{evidence}; {why}")


@RULES.register("reaches")
def reaches(findings: ResultsIndex, *, cell: str, value: float) -> Judgement:
    """A run of a cell reaches a number; if none does, the verdict is inconclusive."""
    runs = findings.runs(cell)
    if not runs:
        return Judgement(Verdict.NOT_RUN, common.not_run(findings.cell(cell)))
    found = runs[0]
    best = max(found.values)
    evidence = f"best of {found.n} runs: {best:.2f} (claimed: {value:g})"
    verdict = Verdict.of(best >= value and not found.change, False)
    return Judgement(verdict, evidence, found.n, found.change)


@RULES.register("most_above_others")
def most_above_others(findings: ResultsIndex, *, pairs: dict[str, str]) -> Judgement:
    """In more than half of the pairs the first cell is better than the second (as `wins_of`)."""
    parts = [above_other(findings, cell=cell, other=other) for cell, other in pairs.items()]
    verdict = common.most([part.verdict for part in parts])
    evidence = "; ".join(part.evidence for part in parts)
    compared = [pair for names in pairs.items() for pair in findings.compared(*names)[:1]]
    return common.together(verdict, evidence + describe(compared), parts)
