"""``spinal paper run``: trains cells until a deadline and puts their records into one archive."""

import argparse
import dataclasses
import gc
import math
import re
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinal_repro.cli.cells import expand
from spinal_repro.cli.paper_report import ARCHIVE, Report, Run
from spinal_repro.errors import EXIT_FAILED, EXIT_INTERRUPTED, UserError
from spinal_repro.io import echo
from spinal_repro.paper.cells import load_cells, tables
from spinal_repro.paper.timebox import DEADLINE, PUT_OFF, TimeBox, in_order
from spinal_repro.records.store import RECORD, describe
from spinal_repro.results.tables import one_line

if TYPE_CHECKING:
    from spinal_repro.training.callbacks import StopOnSignal

MARGIN = 5.0  # seconds before the time is up, for the last checkpoint and the archive


def add_parser(actions: Any) -> None:
    """Add the command."""
    run = actions.add_parser(
        "run",
        help="train cells until the time is up; the same command continues",
        description="Trains one run after another, all heads with one seed before the next seed, "
        "and starts only those that are expected to finish. At the deadline the run in progress "
        "is saved. Records and a summary go into one archive, which is kept up to date.",
    )
    run.add_argument(
        "words",
        nargs="+",
        metavar="CELL",
        help="cells, tables or patterns, and settings of all runs, e.g. protocol=heldout",
    )
    run.add_argument("--seeds", type=_seeds, default=[0], help="e.g. 0-4 or 0,2,5 (default: 0)")
    run.add_argument("--minutes", type=_minutes, required=True, help="time for the whole command")
    run.add_argument("--runs", type=Path, help="folder of run folders (default: as spinal-train)")
    run.add_argument("--out", type=Path, help=f"archive (default: {ARCHIVE} in the runs folder)")
    run.set_defaults(command=run_cells)


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first, last = (int(n or found[1]) for n in found.groups()) if found else (1, 0)
        if first > last:
            raise argparse.ArgumentTypeError(f"write seeds as 0-4 or 0,2,5, not {text}")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return minutes


def run_cells(given: argparse.Namespace) -> None:
    """Train cells until the time is up; exit with 0, 1 or 75 as ``spinal-train`` does."""
    from spinal_repro.training.callbacks import StopOnSignal

    started, seconds = time.monotonic(), 60 * given.minutes
    if given.out is not None and not given.out.resolve().parent.is_dir():
        raise UserError(f"there is no folder {given.out.resolve().parent} for --out")
    try:
        box = TimeBox(_planned(given), started + seconds - min(MARGIN, seconds / 10))
        report = Report(box, given)
        with StopOnSignal() as signals:
            _work(box, report, signals)
        report.write()
    except KeyboardInterrupt:
        echo("spinal paper run: interrupted; the same command continues", error=True)
        sys.exit(EXIT_INTERRUPTED)
    for line in (report.table("table"), "", *report.outcome(), f"Archive: {report.archive}"):
        echo(line)
    counts = report.counts()
    sys.exit(EXIT_INTERRUPTED if counts["left"] else EXIT_FAILED if counts["failed"] else 0)


def _planned(given: argparse.Namespace) -> list[Run]:
    """Compose and check all runs; return them in order."""
    from spinal_repro.cli.train import check_overrides
    from spinal_repro.config.compose import compose
    from spinal_repro.training.setup import resolved

    words = [f"{word}/*" if word in tables() else word for word in given.words if "=" not in word]
    overrides = [word for word in given.words if "=" in word]
    for word in overrides:
        if word.lstrip("+").startswith(("seed=", "paper=", "runs=")):
            raise UserError(f"{word}: write cells without paper=, and use --seeds and --runs")
    if not words:
        raise UserError("name a cell, e.g. mnist/vgg5_spinal (spinal paper list has them all)")
    arguments = [*expand([f"paper={','.join(words)}"], sweeping=True), *overrides]
    check_overrides(arguments)
    names = arguments[0].removeprefix("paper=").split(",")
    configs = {name: compose([f"paper={name}", *overrides]) for name in names}
    counterparts = {name: load_cells(name)[0].counterpart for name in names}
    runs = []
    for name, seed in in_order(counterparts, given.seeds):
        config = dataclasses.replace(configs[name], seed=seed)
        if given.runs is not None:
            config = dataclasses.replace(config, runs=str(given.runs))
        folder = resolved(config).run_dir
        done = int(str(describe(folder).get("epochs") or 0).partition("/")[0])
        runs.append(Run(name, seed, config.recipe.epochs, done, config=config, folder=folder))
    return runs


def _work(box: TimeBox[Run], report: Report, signals: "StopOnSignal") -> None:
    """Report finished runs, then train until the deadline or a signal."""
    import torch

    threads = torch.get_num_threads()
    for run in box.jobs:
        if (run.folder / RECORD).is_file():
            echo(f"already finished: {run.folder}")
            _train(run, box, signals)
            device = run.record and run.record.environment.get("device_name")
            if device == report.machine["device_name"]:
                box.learn(run.cell, run.seconds())
    while not signals.received and (chosen := box.next(time.monotonic())):
        torch.set_num_threads(threads)  # the run before may have set its own number
        _train(chosen, box, signals)
        gc.collect()  # a run that did not finish leaves its model in cycles
        report.write()


def _train(run: Run, box: TimeBox[Run], signals: "StopOnSignal") -> None:
    """Train one run from its last checkpoint until it ends or has to stop."""
    from spinal_repro.training.checkpoint import Interrupted
    from spinal_repro.training.engine import Callback
    from spinal_repro.training.engine import Run as Training
    from spinal_repro.training.run import run as train

    class StopInTime(Callback):
        """Stops the run at the deadline, or for another one that may still finish."""

        reason = ""

        def on_step_end(self, training: Training, *_: object) -> None:
            if time.monotonic() > box.deadline:
                training.stop = self.reason = DEADLINE

        def on_epoch_end(self, training: Training, is_best: bool) -> None:
            run.timing = training.state.timing
            self.reason = box.epoch_ended(run, training.state.epoch, time.monotonic())
            training.stop = self.reason or training.stop

    in_time = StopInTime()
    box.begin(time.monotonic())
    try:
        run.record = train(run.config, [in_time, signals]).record
        run.timing, run.done, run.state = run.record.timing, run.epochs, "done"
    except Interrupted:
        reason = in_time.reason or f"stopped by {signals.received}"
        run.state = "" if reason == PUT_OFF else reason
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        run.state = f"failed: {one_line(str(error) or type(error).__name__)}"
    box.end(run, time.monotonic())
