"""Rules about parameters, multiplications and activations: decided by counting alone."""

from spinal_repro.errors import unknown
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.common import (
    RULES,
    Judgement,
    Verdict,
)

QUANTITIES = {
    "head_parameters": "parameters of the head",
    "total_parameters": "parameters",
    "head_multiplications": "multiplications of the head",
    "total_multiplications": "multiplications of the whole network",
    "head_activations": "activations of the head",
}


def _counts(
    findings: ResultsIndex, against: str, cell: str, quantity: str
) -> tuple[int, int] | None:
    """Counts of two cells; None unless both are known."""
    if quantity not in QUANTITIES:
        raise unknown("quantity", quantity, QUANTITIES)
    before, after = (findings.count(name, quantity) for name in (against, cell))
    return None if before is None or after is None else (before, after)


def _change(before: int, after: int, quantity: str) -> str:
    """``16,500 → 8,480 multiplications of the head, 48.61 % fewer``."""
    percent = 100 * (1 - after / before) if before else 0.0
    words = f"{abs(percent):.2f} % {'fewer' if percent > 0 else 'more'}" if percent else "the same"
    return f"{before:,} → {after:,} {QUANTITIES[quantity]}, {words}"


@RULES.register("counts_reduction")
def counts_reduction(
    findings: ResultsIndex,
    *,
    cell: str,
    against: str,
    quantity: str,
    percent: float | None = None,
    tolerance: float = 0.05,
    also: list[str] | None = None,
) -> Judgement:
    """A cell has so many percent fewer of a quantity than another one.

    Args:
        cell: The cheaper one.
        percent: None for any reduction.
        tolerance: In percentage points; half a unit of the last published digit unless the claim
            gives a reason.
        also: Quantities that are mentioned but not tested.
    """
    found = _counts(findings, against, cell, quantity)
    if found is None:
        return _not_counted(findings, cell)
    fewer = 100 * (1 - found[1] / found[0])
    met = fewer > 0 if percent is None else abs(fewer - percent) <= tolerance
    evidence = [_change(*found, quantity)]
    for name in also or ():
        if (more := _counts(findings, against, cell, name)) is not None:
            evidence.append(_change(*more, name))
    return Judgement(Verdict.of(met, not met), "; ".join(evidence))


@RULES.register("counts_values")
def counts_values(
    findings: ResultsIndex,
    *,
    cell: str,
    against: str,
    quantity: str,
    claimed: list[float],
    tolerance: list[float],
) -> Judgement:
    """Both cells have the claimed numbers, within rounding.

    Args:
        claimed: Of ``against`` and of ``cell``.
        tolerance: Half a unit of the last digit of each.
    """
    found = _counts(findings, against, cell, quantity)
    if found is None:
        return _not_counted(findings, cell)
    stated = zip(found, claimed, tolerance, strict=True)
    met = all(abs(value - claim) <= unit for value, claim, unit in stated)
    return Judgement(Verdict.of(met, not met), _change(*found, quantity))


def _not_counted(findings: ResultsIndex, cell: str) -> Judgement:
    return Judgement(Verdict.NOT_RUN, f"{findings.cell(cell).title}: not counted")


@RULES.register("fraction_of_networks_cheaper")
def fraction_of_networks_cheaper(
    findings: ResultsIndex,
    *,
    cells: list[str],
    quantity: str,
    every: bool = False,
    against: dict[str, str] | None = None,
) -> Judgement:
    """More than half of the networks have fewer of a quantity than their counterparts.

    Networks with equal backbones and counts, on whatever data set, count once.

    Args:
        every: Claim all of them, not more than half.
        against: Other counterparts, by cell.
    """
    networks: set[tuple[str, int, int]] = set()
    others: dict[str, list[str]] = {}  # by backbone, those that do not have fewer
    cheaper, uncounted = 0, 0
    for cell in findings.matching(cells):
        other = (against or {}).get(cell.name, cell.counterpart)
        if other is None:
            continue
        found = _counts(findings, other, cell.name, quantity)
        if found is None:
            uncounted += 1
        elif (network := (cell.backbone, *found)) not in networks:
            networks.add(network)
            before, after = found
            cheaper += after < before
            if after >= before:
                others.setdefault(cell.backbone, []).append(f"{before:,} → {after:,}")
    if not networks:
        return Judgement(Verdict.NOT_RUN, "not counted")
    evidence = f"{cheaper} of {len(networks)} networks have fewer {QUANTITIES[quantity]}"
    if others:
        evidence += f"; not {', '.join(f'{b} ({_first(found)})' for b, found in others.items())}"
    if uncounted:
        evidence += f"; {uncounted} cells not counted"
    total = len(networks) + uncounted
    enough = total if every else total // 2 + 1
    return Judgement(Verdict.of(cheaper >= enough, cheaper + uncounted < enough), evidence)


def _first(changes: list[str]) -> str:
    return changes[0] + (f"; {len(changes)} networks" if len(changes) > 1 else "")
