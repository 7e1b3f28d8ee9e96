"""Cells on the command line of ``spinal-train``: ``paper=<table>/<cell>`` and patterns."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from spinal_repro.errors import UserError
from spinal_repro.paper.cells import load_cells, tables

PATTERN = "*?["


def expand(arguments: Sequence[str], sweeping: bool) -> list[str]:
    """Replace the patterns of ``paper=`` on a command line by the names of their cells.

    Cells that cannot be run are left out with a message.

    Args:
        sweeping: Whether the command is a sweep; a pattern needs one.
    """
    expanded = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "paper" and any(character in value for character in PATTERN):
            names = [name for part in value.split(",") for name in _names(part)]
            if not sweeping:
                raise UserError(
                    f"{argument} names {len(names)} cells; a run of each is a sweep: "
                    f"spinal-train -m '{argument}'"
                )
            argument = f"paper={','.join(dict.fromkeys(names))}"
        expanded.append(argument)
    return expanded


def _names(part: str) -> list[str]:
    """The cells of a pattern or name that can be run."""
    if not any(character in part for character in PATTERN):
        return [part]
    found = load_cells(part)
    refused = [refusal for cell in found if (refusal := cell.refusal())]
    if len(refused) == len(found):
        raise UserError(f"none of the {len(found)} cells of '{part}' can be run: {refused[0]}")
    for refusal in refused:
        print(f"left out: {refusal}", file=sys.stderr)
    return [cell.name for cell in found if cell.refusal() is None]


def check_cell(name: str, folders: Iterable[Path]) -> None:
    """Refuse the name of a cell that does not exist or cannot be run.

    Args:
        folders: Of the user's own configuration; Hydra reads the cells there.
    """
    if any((folder / "paper" / f"{name}.yaml").is_file() for folder in folders):
        return
    if name in tables():
        raise UserError(f"{name} is a table; run one of its cells, or all: -m 'paper={name}/*'")
    (cell,) = load_cells(name)
    if (refusal := cell.refusal()) is not None:
        raise UserError(refusal)
