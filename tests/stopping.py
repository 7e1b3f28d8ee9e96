"""Runs that are stopped at a chosen moment, and what must come out of them all the same."""

import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from spinal_repro.config import compose
from spinal_repro.schema import Config
from spinal_repro.training import checkpoint, loop
from spinal_repro.training.run import run
from spinal_repro.training.stop import Interrupted

TIMES = ("finished", "timing", "wall_seconds", "images_per_second")
SMALL = [
    "data.limit=96", "recipe.epochs=3", "recipe.batch_size=32", "recipe.eval_batch_size=40",
    "runtime.progress=none", "runtime.device=cpu", "runtime.save_every=0",
]  # fmt: skip


def small(runs: Path, *overrides: str) -> Config:
    return compose([f"runs={runs}", *SMALL, *overrides])


def signal_at(monkeypatch, name: str, calls: list[int]) -> list[str]:
    """Send this process a signal as it trains on a batch ("train") or evaluates one ("look")."""
    counts = {"train": 0, "look": 0}
    log = []

    def send(kind: str) -> None:
        counts[kind] += 1
        if name == kind and calls and counts[kind] == calls[0]:
            calls.pop(0)
            number = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)[len(calls) % 3]
            assert callable(signal.getsignal(number)), "nobody would catch it"
            log.append(number.name)
            signal.raise_signal(number)

    train, in_order = loop.training_loss, loop.Batches.in_order

    def training_loss(*given: Any) -> Any:
        send("train")
        return train(*given)

    def batches(self: Any) -> Any:
        for batch in in_order(self):
            send("look")
            yield batch

    monkeypatch.setattr(loop, "training_loss", training_loss)
    monkeypatch.setattr(loop.Batches, "in_order", batches)
    return log


def outcome(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """What must be the same."""
    kept = {key: value for key, value in record.items() if key not in (*TIMES, "git")}
    weights = {
        name: tensor.numpy().tobytes()
        for name, tensor in load_file(folder / "best.safetensors").items()
    }
    last = checkpoint._read(folder / "last.pt")
    state = {k: v for k, v in last["state"].items() if k != "timing"}
    return {
        "record": kept,
        "best": weights,
        "last": {name: tensor.numpy().tobytes() for name, tensor in last["model"].items()},
        "optimizer": str(last["optimizer"]),
        "state": state,
        "predictions": (folder / "predictions.npz").read_bytes(),
    }


def interrupted(config: Config, monkeypatch, step: int) -> Path:
    """A run that was stopped after so many steps of 3 an epoch."""
    with monkeypatch.context() as patch:
        signal_at(patch, "train", [step])
        with pytest.raises(Interrupted):
            run(config)
    return config.run_dir
