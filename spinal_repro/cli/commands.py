"""Declares the commands of ``spinal``: a function, its name and its options."""

import argparse
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spinal_repro.io import expand_home
from spinal_repro.results.tables import FORMATS

Function = Callable[[argparse.Namespace], None]
Option = tuple[tuple[str, ...], dict[str, Any]]
COMMANDS: dict[str, tuple[Function, tuple[Option, ...]]] = {}
GROUPS = {
    "data": "data sets: list, info, fetch, import, verify, show",
    "paper": "the published cells: list, plan, run",
    "records": "records contributed to the results: add",
}


def option(*names: str, **settings: Any) -> Option:
    """An argument of argparse; a function as ``default`` or ``const`` is called for its value."""
    return names, settings


def command(name: str, *options: Option) -> Callable[[Function], Function]:
    """Decorator that declares a command; the docstring of the function is its help."""

    def add(function: Function) -> Function:
        COMMANDS[name] = function, options
        return function

    return add


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add all declared commands; ``paper list`` is ``list`` in the group ``paper``."""
    places = {"": parser.add_subparsers(required=True, metavar="COMMAND")}
    for name, text in GROUPS.items():
        group = places[""].add_parser(name, help=text, description=text)
        places[name] = group.add_subparsers(required=True, metavar="COMMAND")
    for name, (function, options) in COMMANDS.items():
        group_name, _, verb = name.rpartition(" ")
        text = inspect.cleandoc(function.__doc__ or "")
        summary = text.partition("\n")[0].rstrip(".")
        added = places[group_name].add_parser(
            verb, help=summary[0].lower() + summary[1:], description=text
        )
        added.set_defaults(command=function)
        for names, settings in options:
            for key in ("default", "const"):
                if callable(value := settings.get(key)):
                    settings = settings | {key: value()}
            if settings.get("type") is Path:  # a shell does not expand ~ in --root=~/photos
                settings = settings | {"type": path}
            added.add_argument(*names, **settings)


def runs_folder() -> Path:
    """``SPINAL_RUNS``, or ``./runs``."""
    return path(os.environ.get("SPINAL_RUNS", "runs"))


def path(text: str) -> Path:
    """Type of an option: a path, in which ~ is expanded."""
    return Path(expand_home(text))


def count(text: str, least: int = 1) -> int:
    """Type of an option: an integer that is at least 1."""
    if (value := int(text)) < least:
        raise argparse.ArgumentTypeError(f"must be {least} or more, got {value}")
    return value


def natural(text: str) -> int:
    """Type of an option: an integer that is at least 0."""
    return count(text, least=0)


def folder(text: str) -> Path:
    """Type of an option: an existing folder."""
    if not path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return path(text)


def new_file(text: str) -> Path:
    """Type of an option: a file to write, in an existing folder."""
    file = path(text)
    if not file.resolve().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{file}: there is no folder {file.resolve().parent}")
    if file.is_dir():
        raise argparse.ArgumentTypeError(f"{file} is a folder; give the name of a file")
    return file


RECORDS = Path("results/records")
FORMAT = option("--format", choices=FORMATS, default="table", help="default: table")
RUN = option("run", type=Path, help="run folder, see `spinal status`")
