"""Stopping runs at a chosen step or epoch, and the results that equal runs have in common."""

import itertools
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spinal_repro.records.convert import to_plain
from spinal_repro.records.record import read_record
from spinal_repro.training import engine
from spinal_repro.training.checkpoint import Interrupted
from spinal_repro.training.engine import Callback
from spinal_repro.training.run import run

TIMES = ("finished", "timing", "wall_seconds", "images_per_second")


def signal_in_step(monkeypatch: pytest.MonkeyPatch, step: int, name: str = "SIGTERM") -> None:
    """Send this process a signal in its training step ``step``, from 1, over all epochs."""
    left, training_loss = iter(range(step - 1)), engine.training_loss

    def send(*given: Any) -> Any:
        if next(left, None) is None:
            monkeypatch.setattr(engine, "training_loss", training_loss)
            assert callable(signal.getsignal(getattr(signal, name))), "nobody would catch it"
            signal.raise_signal(getattr(signal, name))
        return training_loss(*given)

    monkeypatch.setattr(engine, "training_loss", send)


def results(folder: Path) -> dict[str, Any]:
    """What two finished runs with the same configuration and seed have in common."""
    record = read_record(folder / "record.json")
    last = torch.load(folder / "last.pt", map_location="cpu", weights_only=True)
    best = load_file(folder / "best.safetensors")
    weights = {"best": best, "in last.pt": last["best"], "last": last["model"]}
    return {
        "record": {k: v for k, v in to_plain(record).items() if k not in (*TIMES, "git")},
        "state": {k: v for k, v in last["state"].items() if k != "timing"},
        "optimizer": str(last["optimizer"]),
        "predictions": (folder / "predictions.npz").read_bytes(),
        "rows": len((folder / "metrics.csv").read_text().splitlines()),
        **{
            kind: {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
            for kind, tensors in weights.items()
        },
    }


class StopAt(Callback):
    """Stops the run in the n-th step of this process, or after its n-th epoch."""

    def __init__(self, step: int = 0, epoch: int = 0) -> None:
        self.steps, self.step, self.epoch = itertools.count(1), step, epoch

    def on_step_end(self, run, *_):
        if next(self.steps) == self.step:
            run.stop = "test"

    def on_epoch_end(self, run, is_best):
        if run.state.epoch == self.epoch:
            run.stop = "test"


class Killed(BaseException):
    """Stands for SIGKILL: nothing is saved after it."""


class KillAt(StopAt):
    def on_step_end(self, run, *_):
        if next(self.steps) == self.step:
            raise Killed


def interrupted(config, callback: Callback) -> Path:
    """The folder of a run that the callback stops."""
    with pytest.raises((Interrupted, Killed)):
        run(config, [callback])
    torch.manual_seed(99)  # a new process starts with another random state
    return config.run_dir
