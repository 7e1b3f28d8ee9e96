"""Sentences of the paper that can be checked, and what became of them.

A claim is one small YAML file below ``configs/claims``: the sentence, where it stands, the rule
that decides it and the rule's parameters. Rules are functions of `results.rules`; what they return
is computed from records and counts alone.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spinal_repro.config.compose import config_dir
from spinal_repro.errors import UserError
from spinal_repro.io import read_yaml
from spinal_repro.registry import merge_onto
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules import RULES, VERDICTS, Judgement
from spinal_repro.results.rules.common import CONTRADICTED, INCONCLUSIVE, NOT_RUN, SUPPORTED
from spinal_repro.results.tables import Column, render

OWN = "controls"  # the group of what the paper does not ask
GROUPS = {
    "cost": "Cost",
    "accuracy": "Accuracy, FC against Spinal",
    "reference": "State of the art of June 2020",
    "convergence": "Convergence",
    "theory": "Theory",
    "progressive": "ProgressiveSpinalNet",
    OWN: "Not asked by the paper: structure, size or dropout",
}
HEADINGS = {
    SUPPORTED: "What holds",
    CONTRADICTED: "What does not hold",
    INCONCLUSIVE: "What the runs so far leave open",
    NOT_RUN: "What is not known: not run",
}


@dataclass(frozen=True)
class Claim:
    """One checkable sentence.

    Attributes:
        sentence: What is claimed, in our words where the paper's are longer.
        source: Where it stands.
        group: One of `GROUPS`.
        rule: Name of the rule that decides it.
        parameters: Options of the rule.
        note: What a reader must know to understand the verdict, e.g. a quirk (Q11).
        name: Name of its file, without suffix.
    """

    sentence: str
    source: str
    group: str
    rule: str
    parameters: dict[str, Any]
    note: str = ""
    name: str = ""


@dataclass(frozen=True)
class Judged:
    """A claim and what became of it."""

    claim: Claim
    judgement: Judgement


def load_claims(folder: Path | None = None) -> list[Claim]:
    """All claims, by group and name.

    Args:
        folder: Where their files are; the shipped ones unless given.

    Raises:
        UserError: for a file with an unknown key, group, rule or parameter.
    """
    place = config_dir() / "claims" if folder is None else folder
    claims = [_load(path) for path in sorted(place.glob("*.yaml"))]
    order = list(GROUPS)
    return sorted(claims, key=lambda claim: (order.index(claim.group), claim.name))


def _load(path: Path) -> Claim:
    read = read_yaml(path)
    if not isinstance(read, dict):
        raise UserError(f"the claim {path} must be a group of settings, got {read!r}")
    where = f"claim '{path.stem}'"
    claim = Claim(**merge_onto(Claim, {"name": path.stem, **read}, where=where))
    if claim.group not in GROUPS:
        raise UserError(f"{where}: group must be one of {', '.join(GROUPS)}, got '{claim.group}'")
    try:
        RULES.check(claim.rule, claim.parameters)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return claim


def judge(claims: Iterable[Claim], findings: ResultsIndex) -> list[Judged]:
    """Decide claims.

    Raises:
        UserError: where a claim names a cell that does not exist.
    """
    judged = []
    for claim in claims:
        try:
            judgement = RULES.build(claim.rule, claim.parameters, findings)
        except UserError as error:
            raise UserError(f"claim '{claim.name}': {error}") from error
        judged.append(Judged(claim, judgement))
    return judged


def tally(judged: Sequence[Judged]) -> dict[str, int]:
    """How many claims have each verdict; all verdicts, in their order."""
    found = Counter(item.judgement.verdict for item in judged)
    return {verdict: found[verdict] for verdict in VERDICTS}


def rows(judged: Iterable[Judged]) -> list[dict[str, Any]]:
    """One row a claim, for `COLUMNS`."""
    return [
        {
            "claim": item.claim.name,
            "group": GROUPS[item.claim.group],
            "sentence": item.claim.sentence,
            "verdict": item.judgement.label,
            "n": item.judgement.n,
            "evidence": item.judgement.evidence,
            "source": item.claim.source,
        }
        for item in judged
    ]


COLUMNS = (
    Column("claim", "Claim", "name of its file in configs/claims"),
    Column("sentence", "Sentence"),
    Column(
        "verdict",
        "Verdict",
        "supported, contradicted, inconclusive or not run, by the rule that the claim's file "
        "names; with a reduced budget or a changed recipe at most inconclusive",
    ),
    Column("n", "n", "runs of each side (the smallest number) that the verdict rests on"),
    Column("evidence", "Evidence", "computed from records and counts"),
)

JUDGED = tuple(Column(column.key, column.title) for column in COLUMNS[1:])
UNRUN = (COLUMNS[1], Column("source", "Where it stands"))


def claims_markdown(index: ResultsIndex) -> str:
    """The claims as a section of a Markdown page."""
    judged = judge(load_claims(), index)
    own = [item for item in judged if item.claim.group == OWN]
    parts = [
        f"## What we found\n\nOf the paper: {_tallied(i for i in judged if i not in own)}. "
        f"Of our own questions: {_tallied(own)}.\n\n{COLUMNS[2].title}: {COLUMNS[2].meaning}. "
        f"{COLUMNS[3].title}: {COLUMNS[3].meaning}."
    ]
    for verdict, heading in HEADINGS.items():
        mine = [item for item in judged if item.judgement.verdict == verdict]
        if mine:
            columns = UNRUN if verdict == NOT_RUN else JUDGED
            parts += [f"### {heading} ({len(mine)})", render(columns, rows(mine), "markdown")]
    return "\n\n".join(parts)


def _tallied(judged: Iterable[Judged]) -> str:
    """How many sentences have each verdict, in words."""
    items = list(judged)
    found = ", ".join(f"{count} {verdict}" for verdict, count in tally(items).items())
    return f"{len(items)} sentences, {found}"
