"""``spinal paper run``: trains cells until a deadline and archives their records."""

import argparse
import dataclasses
import math
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from spinal_repro.cli.commands import command, new_file, option
from spinal_repro.cli.paper_report import ARCHIVE, Report
from spinal_repro.errors import EXIT_FAILED, EXIT_INTERRUPTED, UserError
from spinal_repro.io import echo
from spinal_repro.paper.cells import load_cells, tables
from spinal_repro.records.store import RECORD, describe

if TYPE_CHECKING:
    from spinal_repro.paper.timebox import Run

MARGIN = 5.0  # seconds before the deadline, for the last checkpoint and the archive


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first, last = (int(n or found[1]) for n in found.groups()) if found else (1, 0)
        if first > last:
            raise argparse.ArgumentTypeError(f"write seeds as 0-4 or 0,2,5, not {text}")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def minutes(text: str) -> float:
    """Type of an option: a time in minutes."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


WORDS = "cells, tables or patterns, and settings of all runs, e.g. protocol=heldout"


@command(
    "paper run",
    option("words", nargs="+", metavar="CELL", help=WORDS),
    option("--seeds", type=_seeds, default=[0], help="e.g. 0-4 or 0,2,5 (default: 0)"),
    option("--minutes", type=minutes, required=True, help="time for the whole command"),
    option("--runs", type=Path, help="folder of run folders (default: as spinal-train)"),
    option("--out", type=new_file, help=f"archive (default: {ARCHIVE} in the runs folder)"),
)
def run_cells(given: argparse.Namespace) -> None:
    """Train cells until the time is up; the same command resumes.

    Trains one run after another, all heads with one seed before the next seed; runs that are
    expected to finish come first. At the deadline the run in progress is saved. Records and a
    summary go into one archive, which is written again after each run.
    """
    started, seconds = time.monotonic(), 60 * given.minutes

    from spinal_repro.paper.timebox import TimeBox
    from spinal_repro.training.callbacks import StopOnSignal

    try:
        box = TimeBox(_planned(given), started + seconds - min(MARGIN, seconds / 10))
        report = Report(box, given)
        with StopOnSignal() as signals:
            for run in box.runs:
                if (run.folder / RECORD).is_file():
                    echo(f"already finished: {run.folder}")
                    box.train(run, signals)  # reads its record
            box.train_all(signals, after_each=report.write)
        report.write()
    except KeyboardInterrupt:
        echo("spinal paper run: interrupted; the same command resumes", error=True)
        sys.exit(EXIT_INTERRUPTED)
    for line in (report.table("table"), "", *report.outcome(), f"Archive: {report.archive}"):
        echo(line)
    counts = report.counts()
    sys.exit(EXIT_INTERRUPTED if counts["left"] else EXIT_FAILED if counts["failed"] else 0)


def _planned(given: argparse.Namespace) -> "list[Run]":
    """Compose and check all runs; both cells of a pair have a seed before any has the next."""
    from spinal_repro.cli.overrides import check_overrides, expand
    from spinal_repro.config.compose import compose
    from spinal_repro.paper.timebox import Run
    from spinal_repro.training.setup import resolved

    words = [f"{word}/*" if word in tables() else word for word in given.words if "=" not in word]
    overrides = [word for word in given.words if "=" in word]
    for word in overrides:
        if word.lstrip("+").startswith(("seed=", "paper=", "runs=")):
            raise UserError(f"{word}: give cells without paper=, and use --seeds and --runs")
    if not words:
        raise UserError("name a cell, e.g. mnist/vgg5_spinal (spinal paper list has them all)")
    arguments = [*expand([f"paper={','.join(words)}"], sweeping=True), *overrides]
    check_overrides(arguments)
    names = arguments[0].removeprefix("paper=").split(",")
    groups: dict[str, list[str]] = {}
    for name in names:
        (cell,) = load_cells(name)
        baseline = cell.counterpart or name
        groups.setdefault(baseline if baseline in names else name, []).append(name)
    configs = {name: compose([f"paper={name}", *overrides]) for name in names}
    runs = []
    for cells in groups.values():
        for seed, name in ((seed, name) for seed in given.seeds for name in cells):
            config = dataclasses.replace(configs[name], seed=seed)
            if given.runs is not None:
                config = dataclasses.replace(config, runs=str(given.runs))
            folder = resolved(config).run_dir
            done = str(describe(folder).get("epochs") or 0).partition("/")[0]
            runs.append(Run(name, config, folder, int(done)))
    return runs
