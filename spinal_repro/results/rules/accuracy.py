"""Rules about accuracy: paired differences over seeds, and numbers to be passed."""

from statistics import mean

from spinal_repro.results.findings import PROTOCOLS, Findings
from spinal_repro.results.rules.common import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_RUN,
    OPPOSITE,
    SUPPORTED,
    Judgement,
    all_of,
    compare,
    comparisons,
    full_runs,
    rule,
)
from spinal_repro.results.statistics import mean_interval


@rule("mean_above")
def mean_above(findings: Findings, *, cells: list[str], below: bool = False) -> Judgement:
    """Every cell is better than its counterpart: the interval of the paired difference says so.

    Args:
        findings: Everything known.
        cells: Names or patterns of cells that have a counterpart.
        below: The opposite is claimed.
    """
    parts = [compare(findings, cell) for cell, _ in findings.pairs(cells)]
    if below:
        parts = [
            Judgement(OPPOSITE.get(p.verdict, p.verdict), p.evidence, p.n, p.reduced) for p in parts
        ]
    return all_of(parts)


@rule("same_mean")
def same_mean(findings: Findings, *, cells: list[str], margin: float) -> Judgement:
    """Every cell is as good as its counterpart.

    Supported where the whole interval of the paired difference lies within the margin,
    contradicted where it lies wholly outside.

    Args:
        findings: Everything known.
        cells: Names or patterns of cells that have a counterpart.
        margin: In the unit of the published numbers.
    """
    parts = []
    for cell, _ in findings.pairs(cells):
        part = compare(findings, cell)
        found = comparisons(findings, cell)
        if found and not part.reduced and found[0].interval is not None:
            low, high = found[0].interval
            within = -margin <= low and high <= margin
            outside = low > margin or high < -margin
            verdict = SUPPORTED if within else CONTRADICTED if outside else INCONCLUSIVE
            text = f"{part.evidence} (the same: within {margin:g})"
            part = Judgement(verdict, text, part.n)
        parts.append(part)
    return all_of(parts)


@rule("wins_of")
def wins_of(findings: Findings, *, cells: list[str], wins: int) -> Judgement:
    """At least so many of the cells are better than their counterparts.

    Supported where that many intervals of paired differences say so, contradicted where too many
    say the opposite.

    Args:
        findings: Everything known.
        cells: Names or patterns of cells that have a counterpart.
        wins: How many.
    """
    pairs = [(cell, compare(findings, cell)) for cell, _ in findings.pairs(cells)]
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
    means = sum(
        found[0].differences != () and _better(found[0].differences, cell)
        for cell, _ in pairs
        if (found := comparisons(findings, cell))
    )
    evidence = (
        f"of {len(pairs)}, better {len(won)}, worse {len(lost)}, undecided {len(open_)}, "
        f"not run {len(unrun)} (95 % intervals of paired differences); by the mean alone "
        f"better in {means}"
    )
    if lost:
        evidence += f"; worse: {', '.join(cell.title for cell in lost)}"
    counts = [part.n for part in parts if part.n is not None]
    reduced = verdict == INCONCLUSIVE and any(part.reduced for part in parts)
    return Judgement(verdict, evidence, min(counts, default=None), reduced)


def _better(differences: tuple[float, ...], cell: object) -> bool:
    from spinal_repro.results.rules.common import lower_is_better

    return (mean(differences) < 0) == lower_is_better(cell)  # type: ignore[arg-type]


@rule("most_above")
def most_above(findings: Findings, *, cells: list[str]) -> Judgement:
    """More than half of the cells are better than their counterparts (as `wins_of`).

    Args:
        findings: Everything known.
        cells: Names or patterns; those without a counterpart are left out.
    """
    pairs = list(findings.pairs(cells))
    return wins_of(findings, cells=[cell.name for cell, _ in pairs], wins=len(pairs) // 2 + 1)


@rule("above_reference")
def above_reference(
    findings: Findings, *, cells: list[str], reference: float, uncertainty: float = 0.0
) -> Judgement:
    """The best of the cells is above a number from the literature.

    Supported where the 95 % interval of a cell's mean lies above it, contradicted where all cells
    were run and each interval lies below it.

    Args:
        findings: Everything known.
        cells: Names or patterns of cells.
        reference: The number, in the unit of the cells.
        uncertainty: Half-width of what is known of it, e.g. where it was read off a chart.
    """
    parts = []
    for cell in findings.matching(cells):
        found = [r for p in PROTOCOLS if (r := findings.result(cell.name, p)) is not None]
        if not found:
            why = f"cannot be run here ({cell.not_runnable})" if cell.not_runnable else "not run"
            parts.append(Judgement(NOT_RUN, f"{cell.title}: {why}"))
            continue
        runs = full_runs(found[0])
        values = [found[0].value(run) for run in runs]
        interval = mean_interval(values)
        marks = list(dict.fromkeys(mark for run in runs for mark in run.marks))
        verdict = INCONCLUSIVE
        if interval is not None and not marks:
            above, below = interval[0] > reference + uncertainty, interval[1] < reference
            verdict = SUPPORTED if above else CONTRADICTED if below else INCONCLUSIVE
        bounds = "" if interval is None else " ({:.2f} to {:.2f})".format(*interval)
        reduced = f"; reduced budget: {', '.join(marks)}" if marks else ""
        evidence = f"{cell.title}: mean {mean(values):.2f}{bounds} of {len(values)} runs{reduced}"
        parts.append(Judgement(verdict, evidence, len(values), bool(marks)))
    verdicts = [part.verdict for part in parts]
    if SUPPORTED in verdicts:
        verdict = SUPPORTED
    else:
        verdict = verdicts[0] if len(set(verdicts)) == 1 else INCONCLUSIVE
    counts = [part.n for part in parts if part.n is not None]
    spread = f" ± {uncertainty:g}" if uncertainty else ""
    return Judgement(
        verdict,
        f"reference {reference:g}{spread}; " + "; ".join(part.evidence for part in parts),
        min(counts, default=None),
        verdict == INCONCLUSIVE and any(part.reduced for part in parts),
    )


@rule("reaches")
def reaches(findings: Findings, *, cell: str, value: float) -> Judgement:
    """A run of a cell reaches a number; runs that do not are no proof that none can.

    Args:
        findings: Everything known.
        cell: Name of the cell.
        value: The number, in the unit of the cell.
    """
    found = [r for p in PROTOCOLS if (r := findings.result(cell, p)) is not None]
    if not found:
        why = findings.cell(cell).not_runnable
        return Judgement(NOT_RUN, f"cannot be run here ({why})" if why else "not run")
    runs = full_runs(found[0])
    best = max(found[0].value(run) for run in runs)
    marks = bool(runs[0].marks)
    met = best >= value and not marks
    evidence = f"best of {len(runs)} runs: {best:.2f} (claimed: {value:g})"
    return Judgement(SUPPORTED if met else INCONCLUSIVE, evidence, len(runs), marks)
