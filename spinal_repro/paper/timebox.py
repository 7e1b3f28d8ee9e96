"""Time of runs on this machine: an estimate, and runs one after another until a deadline."""

import dataclasses
import gc
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from spinal_repro.config.schema import Config
from spinal_repro.data.sources import Dataset, ImageSet
from spinal_repro.errors import UserError
from spinal_repro.records.record import Record
from spinal_repro.training.callbacks import StopOnSignal
from spinal_repro.training.checkpoint import Interrupted
from spinal_repro.training.device import backend_settings, resolve_device
from spinal_repro.training.engine import Callback, fit
from spinal_repro.training.engine import Run as Training
from spinal_repro.training.run import run as train
from spinal_repro.training.setup import build_run

DEADLINE = "stopped at the deadline"
STEPS = 2
PIXELS = 2_000_000  # of a timed batch; larger ones are scaled up
Timings = dict[str, tuple[float, float]]


def estimate(config: Config, timings: Timings) -> tuple[float, float]:
    """Estimate the seconds of a training step, augmentation included, and of the whole run.

    ``timings`` are the seconds of an image by model and batch; measured ones are added.
    """
    recipe, dataset = config.recipe, config.dataset
    key = str((config.model, config.head, config.input_size, recipe.batch_size, dataset.outputs))
    if key not in timings:
        timings[key] = _measure(config)
    train, evaluate = timings[key]
    assert dataset.train_size is not None and dataset.test_size is not None, dataset.name
    images, selecting = dataset.train_size, dataset.test_size
    if config.protocol.select_on == "val":
        held = round(images * config.protocol.val_fraction)
        selecting = held if dataset.val_size is None else dataset.val_size
        images -= held if dataset.val_size is None else 0
    epoch = images * train + selecting * evaluate
    return train * recipe.batch_size, recipe.epochs * epoch


def _measure(config: Config) -> tuple[float, float]:
    """Seconds for one image, in training and in evaluation, after one epoch to warm up."""
    device, dataset = resolve_device(config.runtime.device), config.dataset
    size = config.input_size
    count = max(2, min(config.recipe.batch_size, PIXELS // (dataset.channels * size**2)))
    stored = {"train": config.preprocessing("train").size or size, "eval": size}
    labels = torch.arange(count) % dataset.outputs
    train, test = (
        ImageSet(torch.randint(256, (count, dataset.channels, s, s), dtype=torch.uint8), labels)
        for s in stored.values()
    )
    plain: Any = {"mean": [0.5], "std": [0.5], "stages": {}, "head_epochs": 0}
    plain["prepare"] = {part: {"resize": [side, side]} for part, side in stored.items()}
    recipe = dataclasses.replace(config.recipe, epochs=1 + STEPS, batch_size=count, **plain)
    protocol = dataclasses.replace(config.protocol, select_on="test", val_fraction=0.0)
    runtime = config.runtime.on(device.type)
    timed = dataclasses.replace(config, recipe=recipe, protocol=protocol, runtime=runtime)
    with backend_settings(device, runtime.precision):
        run = build_run(timed, device, Dataset(train, test)).run
        fit(run)
    epochs = run.state.timing[1:]
    in_training = mean(epoch["train_seconds"] for epoch in epochs) / count
    return in_training, mean(epoch["eval_seconds"] for epoch in epochs) / count


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
        epochs = [end - start for start, end in pairwise(self._ends)]  # with its checkpoint
        self.epoch_seconds[run.cell] = median(epochs[1:] or epochs)
        run.timing, run.done = training.state.timing, training.state.epoch
        if now + self.epoch_seconds[run.cell] > self.deadline:
            training.stop = DEADLINE
