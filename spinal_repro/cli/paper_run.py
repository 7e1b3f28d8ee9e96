"""``spinal paper run``: trains cells until a deadline and archives their records."""

import argparse
import dataclasses
import io
import itertools
import math
import re
import shlex
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from spinal_repro.cli.spinal import command, new_file, option
from spinal_repro.config.compose import compose
from spinal_repro.errors import EXIT_FAILED, EXIT_INTERRUPTED, UserError
from spinal_repro.io import clock, echo, write_atomic
from spinal_repro.paper.cells import load_cells
from spinal_repro.records.store import RECORD, describe
from spinal_repro.results.tables import Column, escape_markdown, one_line, render

if TYPE_CHECKING:
    from spinal_repro.paper.timebox import Run

ARCHIVE = "paper-run.zip"
MARGIN = 5.0  # seconds before the deadline, for the last checkpoint and the archive


def seed_list(text: str) -> list[int]:
    """Parse seeds such as ``0-4`` or ``0,2,5``."""
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
    if not 0 < (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


COLUMNS = (
    Column("cell", "Cell"),
    Column("seed", "Seed"),
    Column("epochs", "Epochs", "finished, of all"),
    Column("accuracy", "Accuracy %", "on the test set, at the selected epoch", "{:.2f}".format),
    Column("rate", "Images/s", "in training, median over epochs", "{:,.0f}".format),
    Column("seconds", "Time", "training and evaluation of all its epochs so far", clock),
    Column("state", "State", "times are estimated from epochs measured on this machine"),
)
WORDS = "cells, tables or patterns, and settings of all runs, e.g. protocol=heldout"


@command(
    "paper run",
    option("words", nargs="+", metavar="CELL", help=WORDS),
    option("--seeds", type=seed_list, default=[0], help="e.g. 0-4 or 0,2,5 (default: 0)"),
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

    runs = _planned(given)
    box = TimeBox(runs, started + seconds - min(MARGIN, seconds / 10))
    archive, facts = given.out or Path(runs[0].config.runs) / ARCHIVE, _facts(runs)

    def table(style: str) -> str:
        return render(COLUMNS, [_row(run, box.needs(run)) for run in runs], style)

    def report() -> None:
        lines = ["# Runs of published cells", *(f"\n{line}" for line in _outcome(runs, given))]
        lines += ["", *(f"- {key}: {escape_markdown(value)}" for key, value in facts.items())]
        _archive(archive, "\n".join([*lines, "", table("markdown"), ""]), runs)

    with StopOnSignal() as signals:
        for run in runs:
            if (run.folder / RECORD).is_file():
                echo(f"already finished: {run.folder}")
                box.train(run, signals)  # reads its record
        box.train_all(signals, after_each=report)
    report()
    echo(f"{table('table')}\n\nProtocol: {facts['Protocol']}")
    for line in (*_outcome(runs, given), f"Archive: {archive}"):
        echo(line)
    counts = _counts(runs)
    sys.exit(EXIT_INTERRUPTED if counts["left"] else EXIT_FAILED if counts["failed"] else 0)


def _planned(given: argparse.Namespace) -> "list[Run]":
    """Compose and check all runs; both cells of a pair have a seed before any has the next."""
    from spinal_repro.cli.overrides import cells_of, check_overrides
    from spinal_repro.paper.timebox import Run
    from spinal_repro.training.resolve import resolved
    from spinal_repro.training.setup import check_parts

    overrides = [argument for argument in given.words if "=" in argument]
    for override in overrides:
        if override.lstrip("+").startswith(("seed=", "paper=", "runs=")):
            raise UserError(f"{override}: give cells without paper=, and use --seeds and --runs")
    cells = ",".join(argument for argument in given.words if "=" not in argument)
    if not cells:
        raise UserError("name a cell, e.g. mnist/vgg5_spinal (spinal paper list has them all)")
    names = cells_of(cells)
    check_overrides([f"paper={','.join(names)}", *overrides])
    groups: dict[str, list[str]] = {}
    for name in names:
        (cell,) = load_cells(name)
        baseline = cell.counterpart or name
        groups.setdefault(baseline if baseline in names else name, []).append(name)
    configs = {name: compose([f"paper={name}", *overrides]) for name in names}
    for config in configs.values() if overrides else ():  # cells alone are known to fit
        check_parts(config)
    runs = []
    for pair in groups.values():
        for seed, name in itertools.product(given.seeds, pair):
            where = str(given.runs or configs[name].runs)
            config = dataclasses.replace(configs[name], seed=seed, runs=where)
            folder = resolved(config).run_dir
            done = str(describe(folder).get("epochs") or 0).partition("/")[0]
            runs.append(Run(name, config, folder, int(done)))
    return runs


def _facts(runs: "list[Run]") -> dict[str, str]:
    """Facts that all runs have in common, for the summary."""
    from spinal_repro.records.provenance import describe_environment
    from spinal_repro.training.device import resolve_device
    from spinal_repro.training.outputs import selection_rule

    configs = [run.config for run in runs]
    machine = describe_environment(resolve_device(configs[0].runtime.device))
    rules = {c.protocol.name: selection_rule(c.protocol, c.data.test) for c in configs}
    reduced = dict.fromkeys(why for config in configs for why in config.reduced_budget)
    return {
        "Protocol": "; ".join(f"{name}: {rule}" for name, rule in rules.items()),
        "Device": f"{machine['device']}, {machine['device_name']}",
        "Precision": configs[0].runtime.on(machine["device"]).precision,
        "PyTorch": machine["torch"],
        "Reduced budget": "; ".join(reduced) or "none",
    }


def _counts(runs: "list[Run]") -> Counter[str]:
    """Count runs that are ``done``, ``failed``, or ``left`` for the next command."""
    states = [run.state.partition(":")[0] for run in runs]
    return Counter(state if state in ("done", "failed") else "left" for state in states)


def _outcome(runs: "list[Run]", given: argparse.Namespace) -> list[str]:
    """The numbers of finished and failed runs, and the command that resumes."""
    counts = _counts(runs)
    lines = [f"{counts['done']} of {len(runs)} runs finished, {counts['failed']} failed."]
    if counts["done"] < len(runs):
        options = [f"--seeds={','.join(map(str, given.seeds))}", f"--minutes={given.minutes:g}"]
        options += [f"--{key}={v}" for key in ("runs", "out") if (v := getattr(given, key))]
        resume = shlex.join(["spinal", "paper", "run", *given.words, *options])
        lines.append(f"To resume: {resume}")
    return lines


def _row(run: "Run", needs: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"cell": run.cell, "seed": run.config.seed, "state": run.state}
    row["epochs"] = f"{run.done}/{run.config.recipe.epochs}"
    if run.timing:
        row["rate"] = median(e["images_per_second"] for e in run.timing)
        row["seconds"] = sum(e["train_seconds"] + e["eval_seconds"] for e in run.timing)
    if run.record is not None:
        test = run.record.test  # None where it was not read
        row["accuracy"] = test and 100 * test.selected.accuracy
    elif run.state.startswith("failed"):
        row["state"] = one_line(run.state)
    else:
        known = "not measured yet" if needs is None else f"needs about {needs / 60:.1f} min"
        row["state"] = f"{run.state or ('stopped' if run.done else 'not started')}: {known}"
    return row


def _archive(path: Path, summary: str, runs: "list[Run]") -> None:
    """Replace the archive of summary and records."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("summary.md", summary)
        for run in runs:
            if run.record is not None:
                kind = f"{run.config.protocol.name}-{run.record.identity}"
                name = f"records/{run.cell}-{kind}-s{run.config.seed}.json"
                archive.write(run.folder / RECORD, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())
