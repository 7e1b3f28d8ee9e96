"""Rules about parameters, multiplications and activations: decided by counting alone."""

from typing import TYPE_CHECKING

from spinal_repro.errors import unknown
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.common import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_RUN,
    SUPPORTED,
    Judgement,
    rule,
)

if TYPE_CHECKING:
    from spinal_repro.paper.cells import Cell

QUANTITIES = {
    "head_parameters": "parameters of the head",
    "total_parameters": "parameters",
    "head_multiplications": "multiplications of the head",
    "total_multiplications": "multiplications of the whole network",
    "head_activations": "activations of the head",
}


def counted(findings: ResultsIndex, cell: "Cell", quantity: str) -> int | None:
    """A count of a cell; None where it has not been counted."""
    if quantity not in QUANTITIES:
        raise unknown("quantity", quantity, QUANTITIES)
    return findings.count(cell.name, quantity)


def _change(findings: ResultsIndex, cell: "Cell", other: "Cell", quantity: str) -> str | None:
    """``16,500 -> 8,480 multiplications of the head, 48.61 % fewer``; None if not counted."""
    before, after = (counted(findings, side, quantity) for side in (other, cell))
    if before is None or after is None:
        return None
    percent = 100 * (1 - after / before) if before else 0.0
    words = f"{abs(percent):.2f} % {'fewer' if percent > 0 else 'more'}" if percent else "the same"
    return f"{before:,} → {after:,} {QUANTITIES[quantity]}, {words}"


@rule("counts_reduction")
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
        quantity: One of `QUANTITIES`.
        percent: None for any reduction.
        tolerance: In percentage points; half a unit of the published figure's last digit unless
            the claim says why not.
        also: Quantities to mention, which decide nothing.
    """
    ours, theirs = findings.cell(cell), findings.cell(against)
    before, after = (counted(findings, side, quantity) for side in (theirs, ours))
    if before is None or after is None:
        return _not_counted(ours)
    found = 100 * (1 - after / before)
    met = found > 0 if percent is None else abs(found - percent) <= tolerance
    changes = (_change(findings, ours, theirs, name) for name in (quantity, *(also or [])))
    evidence = "; ".join(change for change in changes if change is not None)
    return Judgement(SUPPORTED if met else CONTRADICTED, evidence)


@rule("counts_values")
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
        quantity: One of `QUANTITIES`.
        claimed: Of ``against`` and of ``cell``.
        tolerance: Half a unit of the last digit of each.
    """
    ours, theirs = findings.cell(cell), findings.cell(against)
    found = [counted(findings, side, quantity) for side in (theirs, ours)]
    met = True
    for value, stated, unit in zip(found, claimed, tolerance, strict=True):
        if value is None:
            return _not_counted(ours)
        met &= abs(value - stated) <= unit
    evidence = _change(findings, ours, theirs, quantity)
    assert evidence is not None
    return Judgement(SUPPORTED if met else CONTRADICTED, evidence)


@rule("fraction_of_networks_cheaper")
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
        cells: Names or patterns; those without a counterpart are left out.
        quantity: One of `QUANTITIES`.
        every: Claim all of them, not more than half.
        against: Other counterparts, by cell.
    """
    networks: dict[tuple[str, int, int], bool] = {}
    uncounted = set()
    for cell in findings.matching(cells):
        other = (against or {}).get(cell.name, cell.counterpart)
        if other is None:
            continue
        found = [counted(findings, side, quantity) for side in (findings.cell(other), cell)]
        if found[0] is None or found[1] is None:
            uncounted.add(cell.name)
        else:
            networks[cell.backbone, found[0], found[1]] = found[1] < found[0]
    if not networks:
        return Judgement(NOT_RUN, "not counted")
    cheaper, total = sum(networks.values()), len(networks)
    evidence = f"{cheaper} of {total} networks have fewer {QUANTITIES[quantity]}"
    others: dict[str, list[str]] = {}
    for (backbone, before, after), cheap in networks.items():
        if not cheap:
            others.setdefault(backbone, []).append(f"{before:,} → {after:,}")
    if others:
        evidence += f"; not {', '.join(f'{b} ({_first(found)})' for b, found in others.items())}"
    if uncounted:
        evidence += f"; {len(uncounted)} cells not counted"
    enough = total + len(uncounted) if every else (total + len(uncounted)) // 2 + 1
    if cheaper >= enough:
        return Judgement(SUPPORTED, evidence)
    possible = cheaper + len(uncounted) >= enough
    return Judgement(INCONCLUSIVE if possible else CONTRADICTED, evidence)


def _first(changes: list[str]) -> str:
    return changes[0] + (f"; {len(changes)} networks" if len(changes) > 1 else "")


def _not_counted(cell: "Cell") -> Judgement:
    return Judgement(NOT_RUN, f"{cell.title}: not counted")
