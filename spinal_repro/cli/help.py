"""``spinal-train --help``: Hydra's own takes seconds, and lists folders that nobody chooses."""

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USAGE = """\
usage: spinal-train [-m] [GROUP=NAME ...] [GROUP.KEY=VALUE ...] [paper=TABLE/CELL]

Trains one configuration, or continues it; with -m, one for each combination of values:

    spinal-train dataset=qmnist model=vgg5 head=spinal
    spinal-train -m dataset=mnist,kmnist head=fc,spinal seed=0,1,2
    spinal-train paper=mnist/vgg5_spinal

Groups and the names to choose from; dataset and model alone choose the rest as published:

"""
OPTIONS = """
options:
  -h, --help        this text
  -m, --multirun    one run for each combination of comma-separated values
  --cfg job         show what the command line composes, and train nothing
  --config-dir DIR  a folder with groups of your own beside the shipped ones
  --hydra-help      everything else that Hydra knows

Published cells: spinal paper list. Data sets: spinal data list. Runs: spinal status.
Data sets lie in data/ (data.root, SPINAL_DATA), runs in runs/ (runs, SPINAL_RUNS)."""


def help_text(groups: Iterable[str], folders: Iterable[Path]) -> str:
    """Usage, every group with its names, and options.

    Args:
        groups: Names of configuration groups.
        folders: Where their files lie, each ``GROUP/NAME.yaml``.
    """
    places = list(folders)
    lines = []
    for group in groups:
        names = {path.stem for folder in places for path in (folder / group).glob("*.yaml")}
        lines.append(f"  {group}: {', '.join(sorted(names))}\n")
    return USAGE + "".join(lines) + OPTIONS


@contextmanager
def textual_help() -> Iterator[None]:
    """Let Hydra 1.3 build its parser on Python 3.14, which refuses help that is not text.

    Hydra gives an object for ``--shell-completion`` that would write its text when it is printed.
    """
    add: Any = argparse.ArgumentParser.add_argument

    def add_with_text(parser: argparse.ArgumentParser, *names: str, **options: Any) -> Any:
        if not isinstance(options.get("help"), str | None):
            options["help"] = "install or remove shell completion"
        return add(parser, *names, **options)

    argparse.ArgumentParser.add_argument = add_with_text  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.add_argument = add  # type: ignore[method-assign]
