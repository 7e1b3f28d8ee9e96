"""``spinal-train --help``; Hydra's own help takes seconds and lists internal groups."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spinal_repro.config.compose import GROUPS, choices

USAGE = """\
usage: spinal-train [-m] [GROUP=NAME ...] [GROUP.KEY=VALUE ...] [paper=TABLE/CELL]

Trains one configuration, or resumes it; with -m, one run for each combination of values:

    spinal-train dataset=qmnist model=vgg5 head=spinal
    spinal-train -m dataset=mnist,kmnist head=fc,spinal seed=0,1,2
    spinal-train paper=mnist/vgg5_spinal

Groups and their names (a dataset and a model choose the published recipe and head):

"""
OPTIONS = """
options:
  -h, --help        show this text
  -m, --multirun    one run for each combination of comma-separated values
  --cfg job         show the composed configuration, without training
  --explain         show each setting with the file that sets it, without training
  --config-dir DIR  a folder with your own configuration groups
  --hydra-help      options of Hydra

model also takes any network of torchvision and timm: model=resnext50_32x4d.
Published cells: spinal paper list. Data sets: spinal data list. Runs: spinal status.
Data sets are in data/ (data.root, SPINAL_DATA), run folders in runs/ (runs, SPINAL_RUNS)."""


def help_text(folders: Sequence[Path]) -> str:
    """Format usage, groups with their choices (also those in the user's folders), and options."""
    lines = [f"  {group}: {', '.join(choices(group, folders))}\n" for group in GROUPS]
    return USAGE + "".join(lines) + OPTIONS


@contextmanager
def string_help() -> Iterator[None]:
    """Let Hydra 1.3 build its parser on Python 3.14, where an option's help must be a string."""
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
