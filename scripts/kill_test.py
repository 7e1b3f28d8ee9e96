"""Kills runs at random times and compares their results with those of uninterrupted runs.

    python scripts/kill_test.py --kills 60 --seed 0

Each run is started again and again, each time in a new process that continues from the files that
it finds, and that gets SIGKILL in a random step or around a random write of a file, or SIGKILL,
SIGTERM, SIGINT or SIGUSR1 at a random time. When it is finished, its results must be bit for bit
those of a run that was left alone. Processes are forked, so that nothing is imported again.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: threads do not survive a fork

import torch
from safetensors.torch import load_file

from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Config
from spinal_repro.errors import EXIT_INTERRUPTED
from spinal_repro.records.convert import to_plain
from spinal_repro.records.store import read_record
from spinal_repro.training import engine
from spinal_repro.training.checkpoint import Interrupted
from spinal_repro.training.resolve import resolved
from spinal_repro.training.run import run
from spinal_repro.training.setup import build_run

BASE = [
    "data.limit=120", "recipe.epochs=4", "recipe.batch_size=16", "runtime.progress=none",
    "runtime.device=cpu", "runtime.threads=1", "runtime.save_every=0",
]  # fmt: skip
# dropout, augmentation, batch norm, stages, rules, optimizers, protocols, and rare checkpoints
RUNS = [
    ["head=fc", "recipe.augment=[{name: rotation, degrees: 10}]"],
    ["head=spinal", "protocol=paper", "recipe.lr_rule={name: redraw}", "recipe.optimizer=adam"],
    ["head=fc", "head.norm=true", "recipe.stages={2: 0.01, 4: 0.001}", "runtime.precision=bf16"],
    ["head=spinal", "head.dropout=0.3", "recipe.stages={3: 1.0}", "recipe.best_of_last_stage=true",
     "recipe.lr_rule={name: divide}", "runtime.save_every=0.05"],
    ["head=progressive", "recipe.lr_rule={name: redraw_late, start: 1}", "runtime.save_every=1000"],
]  # fmt: skip
POINTS = {"step": (engine, "training_loss"), "flush": (os, "fsync"), "rename": (Path, "replace")}
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1")
TIMES = ("finished", "timing", "wall_seconds", "images_per_second", "run", "git")


def kill_at(point: str, count: int) -> None:
    """Kill this process before or after the ``count``-th call of the function at a point."""
    owner, name = POINTS[point]
    function, left = getattr(owner, name), iter(range(count - 1))

    def call(*given: Any) -> Any:
        last = next(left, None) is None
        if not last or random.random() < 0.5:
            found = function(*given)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, call)


def start(config: Config, point: str = "", count: int = 0, after: float = 0.0) -> str:
    """Run in a new process, which is killed at a point, gets a signal, or is left alone.

    Returns:
        How it ended: ``done``, ``interrupted`` or the name of the signal that ended it.
    """
    child = os.fork()
    if child == 0:
        code = 1
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as SIGTERM before and after training
        try:
            if point in POINTS:
                kill_at(point, count)
            run(config)
            code = 0
        except Interrupted:
            code = EXIT_INTERRUPTED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if point in SIGNALS:
        time.sleep(after)
        os.kill(child, getattr(signal, point))  # a zombie, if it has ended
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return {0: "done", EXIT_INTERRUPTED: "interrupted"}[os.WEXITSTATUS(status)]


def results(folder: Path) -> dict[str, Any]:
    """Record, predictions and tensors of a finished run, without times."""
    record = to_plain(read_record(folder / "record.json"))
    last = torch.load(folder / "last.pt", weights_only=True)
    tensors = {**load_file(folder / "best.safetensors"), **last["model"]}
    for index, state in last["optimizer"]["state"].items():
        tensors.update({f"{index} {key}": tensor for key, tensor in state.items()})
    return {
        **{key: value for key, value in record.items() if key not in TIMES},
        "predictions.npz": (folder / "predictions.npz").read_bytes(),
        **{name: tensor.numpy().tobytes() for name, tensor in tensors.items()},
    }


def main() -> None:
    """Disturb runs until there were enough kills and signals, and compare each finished run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=60, help="kills and signals (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of points and times (default: 0)")
    given = parser.parse_args()
    random.seed(given.seed)
    kills: Counter[str] = Counter()
    compared = 0
    build_run(resolved(compose(BASE)), torch.device("cpu"))  # imports what is imported late
    while kills.total() < given.kills:
        number = given.seed + compared
        overrides = [*BASE, *RUNS[number % len(RUNS)], f"seed={number}"]
        with tempfile.TemporaryDirectory() as place:
            whole, parts = (compose([*overrides, f"runs={place}/{n}"]) for n in ("whole", "parts"))
            began = time.monotonic()
            assert start(whole) == "done"
            length, outcome = time.monotonic() - began, ""
            while outcome != "done":
                point = random.choice([*POINTS, *SIGNALS]) if kills.total() < given.kills else ""
                outcome = start(parts, point, random.randint(1, 12), random.random() * length)
                assert outcome in ("done", "interrupted", "SIGKILL", point), outcome
                kills[point] += outcome != "done"
            expected, found = results(whole.run_dir), results(parts.run_dir)
        wrong = [key for key in expected | found if expected.get(key) != found.get(key)]
        assert not wrong, f"{overrides}: not the same: {wrong}"
        compared += 1
    print(json.dumps({"kills": kills.total(), "at": kills, "runs compared": compared}))


if __name__ == "__main__":
    main()
