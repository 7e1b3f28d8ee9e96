"""Overrides on a command line, checked: cells, patterns of cells, groups, choices and keys."""

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from omegaconf import OmegaConf

from spinal_repro.config.compose import (
    GROUPS,
    as_typed,
    choices,
    compose_raw,
    find_choice,
    hydra_errors,
    library_networks,
)
from spinal_repro.config.schema import leaves, schema_keys
from spinal_repro.errors import UserError, check_known, unknown
from spinal_repro.paper.cells import load_cells, tables

CELL = "paper"  # the group of published cells
PATTERN = frozenset("*?[")


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """Parse overrides as Hydra does; paths may be unquoted."""
    with hydra_errors():
        return OverridesParser.create().parse_overrides([as_typed(word) for word in words])


def split_arguments(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """List the folders of ``--config-dir`` and ``hydra.searchpath``, and the overrides."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--cfg", "-c")  # otherwise argparse takes -c for an abbreviation of -cd
    given, words = parser.parse_known_args(arguments)
    words = [word for word in words if word[:1] != "-" and ("=" in word or word[:1] == "~")]
    folders = [] if given.config_dir is None else [Path(given.config_dir)]
    if folders and not folders[0].is_dir():
        raise UserError(f"--config-dir {folders[0]} is not a folder")
    searched = [word for word in words if word.lstrip("+").startswith("hydra.searchpath=")]
    for override in parse_overrides(searched):
        if isinstance(places := override.value(), list):
            folders += [Path(str(place).removeprefix("file://")) for place in places]
    return folders, words


def expand(arguments: Sequence[str], sweeping: bool) -> list[str]:
    """Replace patterns, ``paper=mnist/*``, by the names of cells; only a sweep may have them."""
    expanded = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == CELL and not PATTERN.isdisjoint(value):
            names = cells_of(value)
            if not sweeping:
                all_of_them = f"to run all of them: spinal-train -m '{argument}'"
                raise UserError(f"{argument} matches {len(names)} cells; {all_of_them}")
            argument = f"paper={','.join(names)}"
        expanded.append(argument)
    return expanded


def cells_of(text: str) -> list[str]:
    """List cells by names, patterns and tables; name those that cannot be run on stderr."""
    names: list[str] = []
    for part in text.split(","):
        if PATTERN.isdisjoint(part) and part not in tables():
            names.append(part)
            continue
        found = {cell.name: cell.refusal() for cell in load_cells(part)}
        refused = list(filter(None, found.values()))
        if len(refused) == len(found):
            raise UserError(f"none of the {len(found)} cells of '{part}' can be run: {refused[0]}")
        for refusal in refused:
            print(f"skipped: {refusal}", file=sys.stderr)
        names += [name for name, refusal in found.items() if refusal is None]
    return list(dict.fromkeys(names))


def check_cell(name: str, folders: Iterable[Path]) -> None:
    """Refuse the name of a cell that does not exist or cannot be run; cells in folders can be."""
    if any((folder / CELL / f"{name}.yaml").is_file() for folder in folders):
        return
    if name in tables():
        raise UserError(f"{name} is a table; run one of its cells, or all: -m 'paper={name}/*'")
    (cell,) = load_cells(name)
    if (refusal := cell.refusal()) is not None:
        raise UserError(refusal)


def check_overrides(arguments: Sequence[str], *more_dirs: Path) -> None:
    """Refuse unknown groups, choices and keys, also after ``+``; suggest the closest match."""
    own_dirs, words = split_arguments(arguments)
    folders, known = [*own_dirs, *more_dirs], schema_keys()
    chosen, keys, removed = [], [], []
    for override in parse_overrides(words):
        key = override.key_or_group
        removed += [key] * override.is_delete()
        if key not in (CELL, *GROUPS):
            if key not in known and "@" not in key and re.split("[./]", key)[0] != "hydra":
                keys.append(key)
            continue
        if override.is_add() or override.is_force_add():
            raise UserError(f"remove the plus sign from {override.input_line}")
        names = _chosen(override)
        for name in names:
            if key == CELL:
                check_cell(name, folders)
            else:
                _check_choice(key, name, folders)
        chosen += [f"{key}={name}" for name in names[:1]]
    if keys:  # composing is slow
        composed: Any = OmegaConf.to_container(compose_raw(chosen, *folders))
        composed.pop(CELL, None)
        for key, _ in leaves(composed):
            known |= set(accumulate(key.split("."), "{}.{}".format))  # a.b and a
    for key in keys:
        if key not in known:
            raise _unknown_key(key, known, folders)
    picked = dict(choice.split("=", 1) for choice in chosen)
    if {CELL, "head"} <= picked.keys():  # the cell sets options of its own head
        options = {f"head.{key}" for key in compose_raw([f"head={picked['head']}"], *folders).head}
        sets = find_choice(CELL, picked[CELL], folders)[1].get("head", ())
        if left := sorted({f"head.{key}" for key in sets} - options - set(removed)):
            raise UserError(
                f"paper={picked[CELL]} sets {', '.join(left)}, which head={picked['head']} does "
                f"not have; add {' '.join(f'~{key}' for key in left)}, or leave out the head"
            )


def _chosen(override: Override) -> list[str]:
    """List the choices that an override names; empty for a glob or a deletion."""
    if override.value_type in (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP):
        return [str(name) for name in override.sweep_string_iterator()]
    no_cell = override.key_or_group == CELL and override.value() is None
    named = not (override.is_sweep_override() or override.is_delete() or no_cell)
    return [str(override.value())] if named else []


def _check_choice(group: str, name: str, folders: Sequence[Path]) -> None:
    known = choices(group, folders)
    if name not in known and group == "model":
        known += difflib.get_close_matches(name, library_networks(), n=1, cutoff=0.8)
    check_known(group, name, known)


def _unknown_key(key: str, known: Iterable[str], folders: Iterable[Path]) -> UserError:
    """Build the error for a key that no chosen option has; name the choices that have it."""
    group, _, option = key.partition(".")
    owners, others = [], set(known)
    for name in choices(group, folders):
        options = dict(leaves(find_choice(group, name, folders)[1])).keys() - {"defaults"}
        others |= {f"{group}.{other}" for other in options}
        owners += [name] * (option in options)
    if not owners:
        return unknown("configuration key", key, others)
    names = " or ".join([", ".join(owners[:-1]), owners[-1]]).removeprefix(" or ")
    return UserError(f"{key} belongs to {group}={names}, which is not chosen")
