"""The verdicts on the claims of ``configs/claims``, from records and counts alone."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from spinal_repro.errors import UserError
from spinal_repro.paper.claims import Claim
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import grouped
from spinal_repro.results.rules import RULES, Judgement, Verdict
from spinal_repro.results.tables import Column, render

HEADINGS = {
    Verdict.SUPPORTED: "What holds",
    Verdict.CONTRADICTED: "What does not hold",
    Verdict.INCONCLUSIVE: "What the runs so far leave open",
    Verdict.UNDECIDABLE: "What runs cannot decide",
    Verdict.NOT_RUN: "What is not known: not run",
}


class Judged(NamedTuple):
    """A claim and the verdict on it."""

    claim: Claim
    judgement: Judgement


def judge(findings: ResultsIndex) -> list[Judged]:
    """Apply the rules of the claims of an index."""
    judged = []
    for claim in findings.claims:
        try:
            if claim.rule:
                found = RULES.build(claim.rule, claim.parameters, findings)
            elif claim.verdict and claim.evidence:
                found = Judgement(Verdict.SUPPORTED, claim.evidence)  # by a proof
            else:
                raise UserError("give a rule, or a verdict and its evidence")
        except UserError as error:
            raise UserError(f"claim '{claim.name}': {error}") from error
        judged.append(Judged(claim, found))
    return judged


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
    "claim's file names; with a changed recipe at most inconclusive"
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
    judged = judge(index)
    sides = grouped(judged, lambda item: item.claim.from_paper)
    parts = [
        f"## What we found\n\nOf the paper: {_tallied(sides.get(True, []))}. Of our own questions: "
        f"{_tallied(sides.get(False, []))}.",
        " ".join(f"{column.title}: {column.meaning}." for column in COLUMNS[2:4]),
    ]
    found = grouped(judged, lambda item: item.judgement.verdict)
    for verdict, heading in HEADINGS.items():
        if mine := found.get(verdict):
            columns = UNRUN if verdict == Verdict.NOT_RUN else JUDGED
            parts += [f"### {heading} ({len(mine)})", render(columns, rows(mine), "markdown")]
    return "\n\n".join(parts)


def _tallied(judged: Sequence[Judged]) -> str:
    found = ", ".join(f"{count} {verdict}" for verdict, count in tally(judged).items())
    return f"{len(judged)} sentences, {found}"
