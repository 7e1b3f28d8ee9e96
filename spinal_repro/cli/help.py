"""``spinal-train --help``: Hydra's own takes seconds, and lists folders that nobody chooses."""

from collections.abc import Iterable
from pathlib import Path

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
