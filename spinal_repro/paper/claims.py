"""The paper's checkable sentences, read from ``configs/claims/``; each file is a group."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from spinal_repro.config.compose import config_dir
from spinal_repro.errors import UserError
from spinal_repro.io import read_yaml
from spinal_repro.records.convert import from_plain


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

    def comparisons(self) -> Iterator[tuple[str, str]]:
        """Names of two cells that the claim compares, other than a cell and its counterpart."""
        if "other" in self.parameters:
            yield self.parameters["cell"], self.parameters["other"]
        if isinstance(pairs := self.parameters.get("pairs"), dict):
            yield from pairs.items()


@dataclass(frozen=True)
class Group:
    """A file of claims, by name; ``order`` is its place among the groups."""

    title: str
    order: int
    claims: dict[str, Claim]
    from_paper: bool = True


def load_claims(folder: Path | None = None) -> list[Claim]:
    """Load the claims of a folder, by default the shipped ones, group by group."""
    groups = []
    for path in sorted((folder or config_dir() / "claims").glob("*.yaml")):
        try:
            groups.append(from_plain(Group, read_yaml(path)))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    groups.sort(key=lambda group: group.order)
    return [
        replace(claim, name=name, group=group.title, from_paper=group.from_paper)
        for group in groups
        for name, claim in group.claims.items()
    ]
