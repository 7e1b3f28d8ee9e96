"""Runs one after another until a deadline."""

import gc
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError
from spinal_repro.records.record import Record
from spinal_repro.training.callbacks import StopOnSignal
from spinal_repro.training.checkpoint import Interrupted
from spinal_repro.training.engine import Callback
from spinal_repro.training.engine import Run as Training
from spinal_repro.training.run import run as train

DEADLINE = "stopped at the deadline"


@dataclass
class Run:
    """One run of a cell, and its progress."""

    cell: str
    config: Config
    folder: Path
    done: int  # epochs in its checkpoint
    state: str = ""  # how it ended, e.g. done, "failed: ..."; empty while it can be started
    record: Record | None = None
    timing: list[dict[str, Any]] = field(default_factory=list)  # see `State.timing`


class TimeBox(Callback):
    """Trains runs until ``deadline``, in seconds of `time.monotonic`.

    The time of an epoch is measured for each cell, without the first epoch of a run, which warms
    up. At the deadline, or where another epoch does not fit, the run stops with a checkpoint.
    """

    def __init__(self, runs: Sequence[Run], deadline: float) -> None:
        self.runs, self.deadline = runs, deadline
        self.epoch_seconds: dict[str, float] = {}  # by cell

    def needs(self, run: Run) -> float | None:
        """Seconds that the rest of a run is expected to take; None before any measurement."""
        seconds = self.epoch_seconds.get(run.cell)
        return None if seconds is None else (run.config.recipe.epochs - run.done) * seconds

    def next(self) -> Run | None:
        """The first run that is expected to finish, else the first that can do an epoch."""
        left = self.deadline - time.monotonic()
        waiting = [run for run in self.runs if not run.state and left > 0]
        possible = [run for run in waiting if self.epoch_seconds.get(run.cell, 0.0) <= left]
        fitting = [run for run in possible if (self.needs(run) or 0.0) <= left]
        return next(iter(fitting or possible), None)

    def train_all(self, signals: StopOnSignal, after_each: Callable[[], None]) -> None:
        """Train until the deadline or a signal, and call ``after_each`` after each run."""
        threads = torch.get_num_threads()
        while not signals.received and (run := self.next()) is not None:
            torch.set_num_threads(threads)  # the previous run may have changed it
            self.train(run, signals)
            gc.collect()  # reference cycles keep the model of an interrupted run
            after_each()

    def train(self, run: Run, signals: StopOnSignal) -> None:
        """Train one run from its last checkpoint until it ends or has to stop."""
        self._run = run
        try:
            run.record = train(run.config, [self, signals]).record
            run.timing, run.done, run.state = run.record.timing, len(run.record.timing), "done"
        except Interrupted:
            run.state = f"stopped by {signals.received}" if signals.received else DEADLINE
        except Exception as error:
            if not isinstance(error, UserError):
                traceback.print_exc()
            run.state = f"failed: {str(error) or type(error).__name__}"

    def on_fit_start(self, training: Training) -> None:
        self._ends = [time.monotonic()]

    def on_step_end(self, training: Training, step: int, losses: Tensor, num_images: int) -> None:
        if time.monotonic() > self.deadline:
            training.stop = DEADLINE

    def on_epoch_end(self, training: Training, is_best: bool) -> None:
        run, now = self._run, time.monotonic()
        self._ends.append(now)
        epochs = [end - start for start, end in pairwise(self._ends)]
        self.epoch_seconds[run.cell] = median(epochs[1:] or epochs)
        run.timing, run.done = training.state.timing, training.state.epoch
        if now + self.epoch_seconds[run.cell] > self.deadline:
            training.stop = DEADLINE
