"""One run, from its configuration to its record."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from spinal_repro.config.schema import Config
from spinal_repro.data.folder import is_own
from spinal_repro.errors import EXIT_FAILED, UserError
from spinal_repro.io import is_locked, run_lock
from spinal_repro.records.record import Record, read_record, write_record
from spinal_repro.records.store import RECORD, describe, error_details, write_status
from spinal_repro.training import device as machine
from spinal_repro.training import outputs
from spinal_repro.training.callbacks import (
    ADVICE,
    NonFiniteCheck,
    NonFiniteHooks,
    Progress,
    StopOnSignal,
)
from spinal_repro.training.checkpoint import LAST, Checkpoint
from spinal_repro.training.engine import Callback, fit
from spinal_repro.training.evaluation import evaluate
from spinal_repro.training.resolve import resolved
from spinal_repro.training.setup import Setup, build_run
from spinal_repro.training.tracking import NONE, Tracking, check_tracker


@dataclass(frozen=True)
class Outcome:
    """Result of `run`: run folder, record, and whether it was already finished."""

    folder: Path
    record: Record
    was_done: bool


def run(config: Config, callbacks: Sequence[Callback] = ()) -> Outcome:
    """Train one configuration, resume it, or return its record if it is finished.

    Raises `Interrupted` if a signal or a callback stopped it.
    """
    if config.runtime.ensemble > 1:
        raise UserError("runtime.ensemble is for scripts/ensemble.py; leave it out")
    device = machine.resolve_device(config.runtime.device)
    config = resolved(config)
    folder = config.run_dir
    if (folder / RECORD).is_file():
        return Outcome(folder, read_record(folder / RECORD), was_done=True)
    check_tracker(config.tracker)
    machine.keep_freed_memory()
    threads = machine.set_threads(config.runtime.threads, folder)
    runtime = dataclasses.replace(config.runtime, threads=threads)
    config = dataclasses.replace(config, runtime=runtime)
    with (
        reported_errors(folder, runtime.deterministic),
        machine.backend_settings(device, runtime.precision, runtime.deterministic),
    ):
        setup = build_run(config, device)  # before the folder exists: a bad setting leaves none
        with run_lock(folder):
            was_done = (folder / RECORD).is_file()  # another process has just finished it
            if not was_done:
                train(config, setup, folder, callbacks)
    return Outcome(folder, read_record(folder / RECORD), was_done)


def train(config: Config, setup: Setup, folder: Path, callbacks: Sequence[Callback]) -> None:
    """Fit, test, and write the record of a run whose folder is locked."""
    run, runtime, path = setup.run, config.runtime, folder / RECORD
    checkpoint = Checkpoint(folder, runtime.save_every, setup.inputs)
    checkpoint.restore(run)
    source = folder
    if not (run.state.epoch or run.lr_rule.uses_epochs or run.recipe.patience):
        source = shorter_run(config)
        checkpoint.restore(run, source)
    outputs.write_config(config, folder)
    progress = Progress(folder / "log.txt", runtime.progress)
    with progress, Tracking(config, folder, progress.warn) as tracking, StopOnSignal() as stop:
        for line in outputs.header_lines(config, source, setup):
            progress.say(line)
        write_status(folder, "running", epochs=f"{run.state.epoch}/{run.recipe.epochs}")
        checks = [NonFiniteHooks()] if runtime.debug == "nonfinite" else []
        fit(run, [*checks, NonFiniteCheck(), progress, tracking, *callbacks, stop, checkpoint])

        tested = evaluate_on_test(setup)
        outputs.write_results(folder, setup, tested)
        if is_own(config.dataset) or config.tracker.name != NONE:
            outputs.draw_plots(config, folder, setup, tested)
        record = outputs.build_record(config, setup, tested)
        write_record(path, record)
        tracking.finish(record, path)
        write_status(folder, "done", epochs=f"{run.state.epoch}/{run.recipe.epochs}")
        for line in outputs.summary(record, path):
            progress.say(line)


def shorter_run(config: Config) -> Path:
    """Find the longest finished run of fewer epochs, but the same settings; else the run's own."""
    for epochs in range(config.recipe.epochs - 1, 0, -1):
        recipe = dataclasses.replace(config.recipe, epochs=epochs)
        folder = dataclasses.replace(config, recipe=recipe).run_dir
        if (folder / RECORD).is_file() and (folder / LAST).is_file():
            return folder
    return config.run_dir


def evaluate_on_test(setup: Setup) -> outputs.Tested | None:
    """Evaluate the last and the best weights on the test split; None without such a split."""
    run, test = setup.run, setup.test
    if test is None:
        return None
    best = last = evaluate(run.evaluated, test, run.autocast, keep=True)
    if run.state.best_epoch != run.state.epoch:
        run.evaluated.load_state_dict(run.best)
        best = evaluate(run.evaluated, test, run.autocast, keep=True)
    for name, found in (("last", last), ("best", best)):
        if not math.isfinite(found.loss):
            raise UserError(f"the test loss of the {name} weights is {found.loss}; {ADVICE}")
    return last, best


@contextmanager
def reported_errors(folder: Path, deterministic: bool) -> Iterator[None]:
    """Write an error into the status of the run; raise `UserError` where a user can fix it."""
    try:
        yield
    except BaseException as error:
        found, first = error, (str(error).splitlines() or [""])[0]
        if isinstance(error, OSError):
            reason = f"{error.filename or folder}: {error.strerror or error}"
            found = UserError(f"{reason}. Fix this, then run the same command to resume")
        elif isinstance(error, torch.OutOfMemoryError):
            advice = "Use a smaller recipe.batch_size and recipe.eval_batch_size"
            found = UserError(f"{first} {advice}")
        elif deterministic and isinstance(error, RuntimeError) and "deterministic" in first:
            found = UserError(f"{first} Use runtime.deterministic=false")
        if folder.is_dir() and not is_locked(folder):  # another process may train it
            state = "failed" if isinstance(error, Exception) else "interrupted"
            with suppress(OSError):  # the disk may be full
                epochs = describe(folder).get("epochs", "")
                write_status(folder, state, epochs=epochs, **error_details(found))
            if isinstance(found, UserError):
                found.exit_code = EXIT_FAILED
        if found is error:
            raise
        raise found from error
