"""When a run saves a checkpoint, and what it leaves and says when it does not finish."""

import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from spinal_repro.errors import UserError
from spinal_repro.files import write_json
from spinal_repro.records import describe, explained, write_status
from spinal_repro.training.checkpoint import PREVIOUS, Loaded, set_aside
from spinal_repro.training.distributed import Ranks
from spinal_repro.training.finite import FAILURE, NonFiniteLossError
from spinal_repro.training.lock import BusyError, RunLock, gone
from spinal_repro.training.loop import State
from spinal_repro.training.stop import Stop


class Saver:
    """Says when to save a checkpoint, and ends a run that was asked to stop.

    A checkpoint takes as long as many epochs of a small network on a GPU, so it is written after
    an epoch only when the last one is ``seconds`` old. Several processes save after each epoch.

    Args:
        stop: Whether there was a signal, or the deadline has passed.
        seconds: Between two checkpoints; None for none before the end.
        ranks: The processes of the run.
    """

    def __init__(self, stop: Stop, seconds: float | None, ranks: Ranks) -> None:
        self.stop, self._seconds, self._ranks = stop, seconds, ranks
        self.saved()

    def saved(self) -> None:
        """Count from now on."""
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether to save and stop inside an epoch."""
        return bool(self.stop.asked) and self._ranks.world == 1

    def due_after_epoch(self) -> bool:
        """Whether to save after an epoch that is not the last one."""
        if self.stop.asked or self._ranks.world > 1:
            return True
        return self._seconds is not None and time.monotonic() - self._last >= self._seconds

    def stop_here(self, state: State) -> None:
        """Stop if any process was asked to; of several, all come here after each epoch.

        Raises:
            Interrupted: on each of them.
        """
        self.stop.check(standing(state), max(self._ranks.gathered(self.stop.asked)))


def standing(state: State) -> str:
    """Where a run stands, in words."""
    if state.partway is None:
        return f"after epoch {state.epoch}"
    steps = len(state.partway.losses)
    return f"after step {state.partway.step} of {steps} in epoch {state.epoch + 1}"


def warnings(
    folder: Path, loaded: Loaded | None, lock: RunLock, threads: tuple[int | None, int | str | None]
) -> Iterator[str]:
    """What must be said before a run goes on; a damaged checkpoint is set aside.

    Args:
        folder: Of the run.
        loaded: The checkpoint that it continues from.
        lock: Whether there is one.
        threads: The number that the run began with, and the one it goes on with.
    """
    if lock.absent:
        yield "this file system has no locks: see to it that no second process trains this run"
    begun, now = threads
    if loaded is not None and begun not in (None, now):
        yield (
            f"this run began with runtime.threads={begun} and goes on with {now}, as asked for: "
            f"the last digits will be others; leave it out to keep the number"
        )
    if loaded is not None and loaded.damaged:
        set_aside(folder)
        yield (
            f"the last checkpoint is damaged ({loaded.damaged}); continuing from the one before, "
            f"{PREVIOUS}, {standing(loaded.state)}: the result will be the same"
        )


def explain(
    error: BaseException, folder: Path, lock: RunLock, deterministic: bool
) -> BaseException:
    """Note in the run folder how a run ended, and say it so that a user knows what to do.

    Args:
        error: What ended it.
        folder: Its folder.
        lock: Nothing is noted unless it is held, in a folder that is still there.
        deterministic: Whether the run asked for nothing else.

    Returns:
        The error to raise: the same, or one with a message for users.
    """
    found, lost = error, lock.lost
    if isinstance(error, NonFiniteLossError):
        found = _not_finite(error, folder, lock)
    elif isinstance(error, OSError) and lost:
        found = gone(folder)
    elif isinstance(error, OSError):
        # what is half written never has a name, so whatever was saved before is there
        found = UserError(
            f"{error.filename or folder}: {error.strerror or error}; everything saved before is "
            f"intact. Once that is mended, the same command continues"
        )
    elif isinstance(error, torch.OutOfMemoryError):
        what = ". ".join(str(error).split(". ")[:3])  # advice on PyTorch's allocator follows
        found = UserError(
            f"{what}. Lower recipe.batch_size or recipe.eval_batch_size; where other programs "
            f"fill the device, wait for them: the same command continues"
        )
    elif deterministic and isinstance(error, RuntimeError) and "deterministic" in str(error):
        found = UserError(
            f"runtime.deterministic=true cannot be kept: {str(error).splitlines()[0]} Use another "
            f"device or model, or runtime.deterministic=false"
        )
    if lock.held and not lost and not isinstance(error, BusyError):
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(OSError):  # the disk may be full
            epochs = describe(folder).get("epochs", "")
            write_status(folder, state, epochs=epochs, **explained(found))
    return found


def _not_finite(error: NonFiniteLossError, folder: Path, lock: RunLock) -> UserError:
    """The same with the command that repeats it; ``failure.json`` has all images of the batches."""
    what = {
        "epoch": error.epoch,
        "evaluation": error.evaluation,
        "step": error.step,
        "part": error.part,
        "images": error.images,
        "images_of_step_before": error.before,
    }
    with suppress(OSError):
        if lock.held:
            write_json(folder / FAILURE, {**what, "message": str(error)})
    return UserError(f"{error}. To repeat that batch: spinal replay {shlex.quote(str(folder))}")
