"""Checkpoint of a run: ``last.pt`` holds weights, optimizer, progress and the best weights."""

import dataclasses
import io
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from spinal_repro.errors import UserError
from spinal_repro.io import write_atomic
from spinal_repro.records.store import write_status
from spinal_repro.training.engine import Callback, Run, State
from spinal_repro.training.outputs import metrics_csv

LAST = "last.pt"


class Interrupted(KeyboardInterrupt):
    """The run was stopped; the same command resumes from its checkpoint."""


class Checkpoint(Callback):
    """Writes checkpoints after epochs, and stops the run where ``run.stop`` is set.

    Writing a checkpoint can take longer than many epochs of a small network on a GPU, so at least
    ``seconds`` pass between two of them. A run stops at the next step if its last finished epoch is
    saved, else after the epoch in progress.

    Args:
        seconds: Least time between two checkpoints; None for one after the last epoch only.
        inputs: `Setup.inputs`; a checkpoint of a run with other inputs is refused.
    """

    def __init__(self, folder: Path, seconds: float | None, inputs: Mapping[str, object]) -> None:
        self._folder, self._seconds, self._inputs = folder, seconds, dict(inputs)
        self._time, self._epoch = time.monotonic(), 0  # of the last checkpoint

    def restore(self, run: Run, folder: Path | None = None) -> None:
        """Continue from the checkpoint, if there is one; ``folder`` is that of another run."""
        path = (folder or self._folder) / LAST
        if not path.is_file():
            return
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            changed = [n for n, hash in self._inputs.items() if saved["inputs"].get(n) != hash]
            if changed:
                raise UserError(
                    f"changed since the run in {self._folder} began: {', '.join(changed)}. "
                    f"Restore them, or delete {path} to start the run again"
                )
            run.model.load_state_dict(saved["model"])
            run.optimizer.load_state_dict(saved["optimizer"])
            if run.average is not None:
                run.average.load_state_dict(saved["average"])
            state = saved["state"]
            if "best_correct" in state:  # of an earlier version
                state["best_score"] = state.pop("best_correct") / run.select.num_images
            run.state = State(**state)
            run.best = {name: t.to(run.train.device) for name, t in saved["best"].items()}
        except (UserError, OSError, torch.OutOfMemoryError):  # not the fault of the file
            raise
        except Exception as error:  # a damaged file raises many types
            reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]
            raise UserError(f"{path} cannot be loaded ({reason}); delete it to restart") from error
        self._epoch = run.state.epoch

    def on_step_end(self, run: Run, *_: object) -> None:
        if run.stop and self._epoch == run.state.epoch:
            self.stop(run)

    def on_epoch_end(self, run: Run, is_best: bool) -> None:
        due = self._seconds is not None and time.monotonic() - self._time >= self._seconds
        if due or run.stop or run.finished:
            self.save(run)
        if run.stop and not run.finished:
            self.stop(run)

    def save(self, run: Run) -> None:
        """Write checkpoint, metrics and status."""
        buffer, state = io.BytesIO(), run.state
        content = {
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "average": run.average and run.average.state_dict(),
            "state": dataclasses.asdict(state),
            "best": run.best,
            "inputs": self._inputs,
        }
        torch.save(content, buffer)
        # metrics first: after a kill between the two, the epoch is trained and both written again
        write_atomic(self._folder / "metrics.csv", metrics_csv(state))
        write_atomic(self._folder / LAST, buffer.getvalue())
        write_status(self._folder, "running", epochs=f"{state.epoch}/{run.recipe.epochs}")
        self._time, self._epoch = time.monotonic(), state.epoch

    def stop(self, run: Run) -> None:
        found = "before the first checkpoint; the same command restarts the run"
        if self._epoch:
            found = f"saved after epoch {self._epoch}; the same command resumes"
        raise Interrupted(f"{run.stop}: stopped, {found}")
