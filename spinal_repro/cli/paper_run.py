"""``spinal paper run``: as many runs of published cells as a time slot holds, in one archive."""

import argparse
import dataclasses
import gc
import math
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinal_repro.cli.cells import check_cell, expand
from spinal_repro.cli.paper_report import ARCHIVE, Report, Run
from spinal_repro.config.schema import Config
from spinal_repro.errors import EXIT_FAILED, EXIT_INTERRUPTED, UserError
from spinal_repro.io import echo
from spinal_repro.paper.cells import load_cells, tables
from spinal_repro.paper.timebox import TimeBox, in_order
from spinal_repro.records.store import RECORD, describe
from spinal_repro.results.tables import one_line

if TYPE_CHECKING:
    from spinal_repro.training.callbacks import StopOnSignal

MARGIN = 5.0  # seconds before the time is up, for the last checkpoint and the archive
DEADLINE = "stopped at the deadline"


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
        help="cells, tables, patterns; and settings of all runs, e.g. protocol=heldout",
    )
    run.add_argument("--seeds", type=_seeds, default=[0], help="e.g. 0-4 or 0,2,5 (default: 0)")
    run.add_argument("--minutes", type=_minutes, required=True, help="time for the whole command")
    run.add_argument("--runs", type=Path, help="folder of run folders (default: as spinal-train)")
    run.add_argument("--out", type=Path, help=f"archive (default: {ARCHIVE} in the runs folder)")
    run.set_defaults(command=run_cells)


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (not dash or last.isdecimal())):
            raise argparse.ArgumentTypeError(f"write seeds as 0-4 or 0,2,5, not {text}")
        found = range(int(first), int(last if dash else first) + 1)
        if not found:
            raise argparse.ArgumentTypeError(f"{part} has no seeds; write the smaller one first")
        seeds += found
    return list(dict.fromkeys(seeds))


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return minutes


def run_cells(given: argparse.Namespace) -> None:
    """Run cells until the time is up; exits with 0, 1 or 75 as ``spinal-train`` does.

    Raises:
        UserError: for cells, settings and folders that are wrong, before anything is started.
    """
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
    echo(report.table("table"))
    for line in ("", *report.standing, f"Records and summary: {report.archive}"):
        echo(line)
    sys.exit(EXIT_INTERRUPTED if report.left else EXIT_FAILED if report.failed else 0)


def _planned(given: argparse.Namespace) -> list[Run]:
    """Every run in order, composed and checked."""
    words = [f"{word}/*" if word in tables() else word for word in given.words if "=" not in word]
    overrides = [word for word in given.words if "=" in word]
    for word in overrides:
        if word.lstrip("+").startswith(("seed=", "paper=", "runs=")):
            raise UserError(f"{word}: name cells alone, seeds by --seeds, the folder by --runs")
    if not words:
        raise UserError("name a cell, e.g. mnist/vgg5_spinal (spinal paper list has them all)")
    (argument,) = expand([f"paper={','.join(words)}"], sweeping=True)
    cells: dict[str, str | None] = {}
    for name in argument.removeprefix("paper=").split(","):
        check_cell(name, [])
        cells[name] = load_cells(name)[0].counterpart
    configs = {name: _composed([f"paper={name}", *overrides], given.runs) for name in cells}
    runs = []
    for name, seed in in_order(cells, given.seeds):
        config, found = (dataclasses.replace(config, seed=seed) for config in configs[name])
        done = str(describe(found.run_dir).get("epochs") or 0).partition("/")[0]
        epochs = config.recipe.epochs
        runs.append(Run(name, seed, epochs, int(done), config=config, folder=found.run_dir))
    return runs


def _composed(overrides: list[str], runs: Path | None) -> tuple[Config, Config]:
    """A configuration, and what this machine makes of it.

    Raises:
        UserError: where it is not valid, with the nearest name if one is wrong.
    """
    from spinal_repro.cli.train import check_overrides
    from spinal_repro.config.compose import compose
    from spinal_repro.training.setup import resolved

    try:
        config = compose(overrides)
    except UserError:
        check_overrides(overrides)
        raise
    if runs is not None:
        config = dataclasses.replace(config, runs=str(runs))
    return config, resolved(config)


def _work(box: TimeBox[Run], report: Report, signals: "StopOnSignal") -> None:
    """Report what is finished, then run what fits until the deadline or a signal."""
    import torch

    threads = torch.get_num_threads()
    for run in box.jobs:
        if (run.folder / RECORD).is_file():
            echo(f"already finished: {run.folder}")
            _do(run, box, signals)
            if run.record and run.record.environment.get("device_name") == report.device_name:
                seconds = [epoch["train_seconds"] + epoch["eval_seconds"] for epoch in run.timing]
                box.learn(run.cell, seconds)
    while not signals.received and (fits := box.next(time.monotonic())):
        torch.set_num_threads(threads)  # the run before may have had a number of its own
        _do(fits, box, signals)
        gc.collect()  # a run that did not finish leaves its model in cycles
        report.write()


def _do(run: Run, box: TimeBox[Run], signals: "StopOnSignal") -> None:
    """One run, from where it stands to its end, or to where it has to stop."""
    from spinal_repro.training.checkpoint import Interrupted
    from spinal_repro.training.engine import Callback
    from spinal_repro.training.engine import Run as Training
    from spinal_repro.training.run import run as train

    class ClassifierLocation(Callback):
        """Stops the run at the deadline, or for another one that may still finish."""

        reason: str | None = None  # of the stop; "" where the run may be continued

        def stop(self, training: Training, reason: str) -> None:
            training.stop, self.reason = reason or "put off", reason

        def on_step_end(self, training: Training, *_: object) -> None:
            if time.monotonic() > box.deadline:
                self.stop(training, DEADLINE)

        def on_epoch_end(self, training: Training, is_best: bool) -> None:
            now = time.monotonic()
            run.timing = training.state.timing
            if not box.epoch_ended(run, training.state.epoch, now):
                self.stop(training, "")
            elif not box.epoch_fits(run, now):
                self.stop(training, DEADLINE)

    slot = ClassifierLocation()
    box.begin(run, time.monotonic())
    try:
        run.record = train(run.config, [slot, signals]).record
        run.timing, run.done, run.state = run.record.timing, run.epochs, "done"
    except Interrupted:
        run.state = f"stopped by {signals.received}" if slot.reason is None else slot.reason
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        run.state = f"failed: {one_line(str(error) or type(error).__name__)}"
    box.end(run, time.monotonic())
