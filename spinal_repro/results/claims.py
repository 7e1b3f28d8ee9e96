"""Checkable sentences of the paper, and the verdicts on them, from records and counts alone.

A file of ``configs/claims`` is a group of claims.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from spinal_repro.config.compose import config_dir
from spinal_repro.errors import UserError
from spinal_repro.io import read_yaml
from spinal_repro.records.convert import from_plain
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules import RULES, Judgement, Verdict
from spinal_repro.results.tables import Column, render

HEADINGS = {
    Verdict.SUPPORTED: "What holds",
    Verdict.CONTRADICTED: "What does not hold",
    Verdict.INCONCLUSIVE: "What the runs so far leave open",
    Verdict.UNDECIDABLE: "What runs cannot decide",
    Verdict.NOT_RUN: "What is not known: not run",
}


@dataclass(frozen=True)
class Claim:
    """One checkable sentence, decided by a rule, or by a proof that ``evidence`` names."""

    sentence: str  # shortened where the paper's is long
    source: str
    group: str = ""  # title of its group
    rule: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    note: str = ""  # needed to understand the verdict, e.g. a quirk (Q11)
    verdict: Literal["supported", ""] = ""  # without a rule
    evidence: str = ""
    name: str = ""
    from_paper: bool = True  # False: our own control


@dataclass(frozen=True)
class Group:
    """A file of claims, by name; ``order`` is its place among the groups."""

    title: str
    order: int
    claims: dict[str, dict[str, Any]]
    from_paper: bool = True


@dataclass(frozen=True)
class Judged:
    """A claim and the verdict on it."""

    claim: Claim
    judgement: Judgement


def load_claims(folder: Path | None = None) -> list[Claim]:
    """Load the claims of a folder, by default the shipped ones, group by group."""
    groups = []
    for path in sorted((folder or config_dir() / "claims").glob("*.yaml")):
        try:
            groups.append(from_plain(Group, read_yaml(path)))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    groups.sort(key=lambda group: group.order)
    return [_claim(group, name, given) for group in groups for name, given in group.claims.items()]


def _claim(group: Group, name: str, given: dict[str, Any]) -> Claim:
    added = {"name": name, "group": group.title, "from_paper": group.from_paper}
    try:
        return from_plain(Claim, given | added)
    except UserError as error:
        raise UserError(f"claim '{name}': {error}") from error


def judge(claims: Iterable[Claim], findings: ResultsIndex) -> list[Judged]:
    """Apply the rules of claims."""
    judged = []
    for claim in claims:
        try:
            judged.append(Judged(claim, _judgement(claim, findings)))
        except UserError as error:
            raise UserError(f"claim '{claim.name}': {error}") from error
    return judged


def _judgement(claim: Claim, findings: ResultsIndex) -> Judgement:
    if claim.rule:
        return RULES.build(claim.rule, claim.parameters, findings)
    if not (claim.verdict and claim.evidence):
        raise UserError("give a rule, or a verdict and its evidence")
    return Judgement(Verdict.SUPPORTED, claim.evidence)  # by a proof


def tally(judged: Sequence[Judged]) -> dict[str, int]:
    """Count the claims with each verdict; all verdicts, in their order."""
    found = Counter(item.judgement.verdict for item in judged)
    return {verdict: found[verdict] for verdict in Verdict}


def rows(judged: Iterable[Judged]) -> list[dict[str, Any]]:
    """Turn claims into rows of `COLUMNS`."""
    return [
        vars(item.claim)
        | vars(item.judgement)
        | {"claim": item.claim.name, "verdict": item.judgement.label}
        for item in judged
    ]


VERDICT = (
    "supported, contradicted, inconclusive, not run or not decidable here, by the rule that the "
    "claim's file names; with a reduced budget or a changed recipe at most inconclusive"
)
COLUMNS = (
    Column("claim", "Claim", "its name in configs/claims"),
    Column("sentence", "Sentence"),
    Column("verdict", "Verdict", VERDICT),
    Column("n", "n", "number of runs per side behind the verdict (the smallest, if several)"),
    Column("evidence", "Evidence", "computed from records and counts"),
)
JUDGED = tuple(Column(column.key, column.title) for column in COLUMNS[1:])
UNRUN = (COLUMNS[1], Column("source", "Source"))


def claims_markdown(index: ResultsIndex) -> str:
    """Write the claims as a section of a Markdown page."""
    judged = judge(load_claims(), index)
    ours, of_paper = (
        [item for item in judged if item.claim.from_paper == paper] for paper in (False, True)
    )
    parts = [
        f"## What we found\n\nOf the paper: {_tallied(of_paper)}. Of our own questions: "
        f"{_tallied(ours)}.",
        " ".join(f"{column.title}: {column.meaning}." for column in COLUMNS[2:4]),
    ]
    for verdict, heading in HEADINGS.items():
        mine = [item for item in judged if item.judgement.verdict == verdict]
        if mine:
            columns = UNRUN if verdict == Verdict.NOT_RUN else JUDGED
            parts += [f"### {heading} ({len(mine)})", render(columns, rows(mine), "markdown")]
    return "\n\n".join(parts)


def _tallied(judged: Sequence[Judged]) -> str:
    found = ", ".join(f"{count} {verdict}" for verdict, count in tally(judged).items())
    return f"{len(judged)} sentences, {found}"
