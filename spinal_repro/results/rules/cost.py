"""Rules about parameters, multiplications and activations, decided by counting."""

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from statistics import median

from spinal_repro.errors import unknown
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.common import RULES, Judgement, Verdict, compare, most, together

Groups = dict[str, dict[str, str]]  # by backbone: counterparts by cell
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
    if quantity not in QUANTITIES:
        raise unknown("quantity", quantity, QUANTITIES)
    known = [findings.counts.get(findings.cell(name).name, {}) for name in (against, cell)]
    before, after = (counts.get(quantity) for counts in known)
    return None if before is None or after is None else (before, after)


def _change(before: int, after: int, quantity: str) -> str:
    """``16,500 → 8,480 multiplications of the head, 48.61 % fewer``."""
    percent = 100 * (1 - after / before) if before else 0.0
    words = f"{abs(percent):.2f} % {'fewer' if percent > 0 else 'more'}" if percent else "the same"
    return f"{before:,} → {after:,} {QUANTITIES[quantity]}, {words}"


@RULES.register("counts")
def counts(
    findings: ResultsIndex,
    *,
    cell: str,
    against: str,
    quantity: str,
    percent: float | None = None,
    claimed: list[float] | None = None,
    tolerance: list[float] | None = None,
    also: list[str] | None = None,
) -> Judgement:
    """A cell has so many percent fewer of a quantity than another one.

    Args:
        percent: None for any reduction.
        claimed: The numbers of ``against`` and of ``cell``, in place of a percentage.
        tolerance: Of the percentage (0.05 unless given) or of each number: half a unit of the
            last published digit unless the claim gives a reason.
        also: Quantities that are mentioned but not tested.
    """
    found = _counts(findings, against, cell, quantity)
    if found is None:
        return Judgement(Verdict.NOT_RUN, f"{findings.cell(cell).title}: not counted")
    fewer = 100 * (1 - found[1] / found[0])
    values, stated = ((fewer,), (percent,)) if claimed is None else (found, claimed)
    each = zip(values, stated, tolerance or [0.05], strict=True)
    met = all(
        fewer > 0 if given is None else abs(value - given) <= unit for value, given, unit in each
    )
    named = ((name, _counts(findings, against, cell, name)) for name in (quantity, *(also or ())))
    evidence = "; ".join(_change(*pair, name) for name, pair in named if pair is not None)
    return Judgement(Verdict.of(met, not met), evidence)


def _architectures(
    findings: ResultsIndex, cells: list[str], without: list[str], against: Mapping[str, str]
) -> tuple[Groups, Groups]:
    """Group cells by backbone; those that make an assumption of ``without`` are the second part."""
    found: tuple[Groups, Groups] = ({}, {})
    for cell in findings.matching(cells):
        if other := against.get(cell.name, cell.counterpart):
            assumed = any(fnmatchcase(made, name) for made in cell.assumes for name in without)
            backbone = "no backbone" if cell.backbone == "none" else cell.backbone
            found[assumed].setdefault(backbone, {})[cell.name] = other
    return found


def _saved(findings: ResultsIndex, others: Mapping[str, str], quantity: str) -> list[float]:
    found = {_counts(findings, other, name, quantity): None for name, other in others.items()}
    return [100 * (1 - pair[1] / pair[0]) for pair in found if pair and pair[0]]


def _range(values: Sequence[float]) -> str:
    """``1.21 to 1.67``, ``35.48`` or ``not counted``."""
    ends = (min(values), max(values)) if values else ()
    found = [f"{end:,.2f}" if abs(end) >= 0.005 else f"{end:.1g}" for end in ends]
    return " to ".join(dict.fromkeys(found)) or "not counted"


def _sizes(findings: ResultsIndex, kept: Groups, apart: Groups, quantity: str) -> str:
    """Percent that architectures save in the head and in the whole network, and their median."""
    of = quantity.partition("_")[2]
    kinds = [name for name in QUANTITIES if name.endswith(of)]

    def saved_in(groups: Groups) -> str:
        return "; ".join(
            f"{name} {' and '.join(_range(_saved(findings, others, kind)) for kind in kinds)}"
            for name, others in groups.items()
        )

    middle = []
    for kind in kinds:
        known = [_saved(findings, others, kind) for others in kept.values()]
        each = [median(values) for values in known if values]
        middle.append(f"{_range(each and [median(each)])} ({_range(each)})")
    left = f"; left out for an assumption: {saved_in(apart)}" if apart else ""
    return (
        f"% of {of} saved in the head{' and in the whole network' * (len(kinds) > 1)}: "
        f"{saved_in(kept)}; median of the architectures {' and '.join(middle)}{left}"
    )


@RULES.register("fraction_of_networks_cheaper")
def fraction_of_networks_cheaper(
    findings: ResultsIndex,
    *,
    cells: list[str],
    quantity: str,
    at_least: float = 0.0,
    every: bool = False,
    worse_by: float | None = None,
    against: dict[str, str] | None = None,
    without: list[str] | None = None,
) -> Judgement:
    """More than half of the architectures have fewer of a quantity than their counterparts.

    The networks of one backbone, of whatever data set and width, are one architecture. It has
    fewer if the median of its distinct networks has.

    Args:
        at_least: Percent that an architecture must save.
        every: Claim it of every network of every architecture.
        worse_by: If given, an architecture must also have the lower error in more than half of its
            cells, as decided in the table of pairs; an error that is higher by less than
            this, in the unit of the published numbers, counts as lower.
        against: Other counterparts, by cell.
        without: Names or patterns of assumptions; cells that make one are stated but not judged.
    """
    kept, apart = _architectures(findings, cells, without or [], against or {})
    found, said, parts = [], [], []
    for name, others in kept.items():
        saved = _saved(findings, others, quantity)
        fewer = (min if every else median)(saved) if saved else 0.0
        met = fewer > 0 and fewer >= at_least
        found.append(Verdict.of(met, not met) if saved else Verdict.NOT_RUN)
        if worse_by is not None:
            compared = [compare(findings, findings.cell(of), worse_by=worse_by) for of in others]
            count = Counter(part.verdict for part in compared)
            said.append(f"{name} " + ", ".join(f"{of} {count[of]}" for of in Verdict if count[of]))
            if met:
                found[-1] = most([part.verdict for part in compared])
                parts += compared
    few = f"at least {at_least:g} % fewer" if at_least else "fewer"
    evidence = f"{found.count(Verdict.SUPPORTED)} of {len(kept)} architectures have {few} "
    evidence += QUANTITIES[quantity] + " in every network" * every
    if worse_by is not None:
        lower = f"an error less than {worse_by:g} higher" if worse_by else "a lower error"
        evidence += f" and {lower}; verdicts on the error, by cells: {'; '.join(said)}"
    evidence += f"; {_sizes(findings, kept, apart, quantity)}"
    verdict = most(found, len(kept) if every else None)
    if verdict == Verdict.INCONCLUSIVE and {part.verdict for part in parts} == {Verdict.NOT_RUN}:
        verdict = Verdict.NOT_RUN
    return together(verdict, evidence, parts)
