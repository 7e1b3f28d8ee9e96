"""Kill runs at random moments; their results must be those of runs that nobody disturbed.

    python scripts/kill_test.py --kills 60 --seed 0

Each run is started again and again, every time in a process of its own that continues from the
files that are there. The process gets SIGKILL at a random point (in a step, in an evaluation, in
the middle of a file, before a flush, before or after a rename) or at a random time; or SIGTERM,
SIGINT or SIGUSR1 at a random time. A finished run is compared with an undisturbed one: weights,
optimizer, history, record, metrics and predictions must be the same to the bit, except times. The
processes are forked from one that has imported everything, so a kill takes little time.
"""

import argparse
import csv
import json
import os
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: threads do not survive a fork

import torch
from safetensors.torch import load_file

from spinal_repro import io
from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Config
from spinal_repro.data.loader import Batches
from spinal_repro.errors import EXIT_INTERRUPTED
from spinal_repro.records.store import read_record
from spinal_repro.training import engine, outputs
from spinal_repro.training.checkpoint import LAST, Interrupted
from spinal_repro.training.engine import Callback, Run
from spinal_repro.training.run import run
from spinal_repro.training.setup import build_run, resolved

BASE = [
    "data.limit=120", "recipe.epochs=4", "recipe.batch_size=16", "runtime.progress=none",
    "runtime.device=cpu", "runtime.threads=1", "runtime.save_every=0",
]  # fmt: skip
# Dropout (fc), batch norm, augmentation, stages, every kind of rule and optimizer, both protocols;
# checkpoints after each epoch, after some, and at the end only.
RUNS = [
    ["head=fc", "recipe.augment=[{name: rotation, degrees: 10}]"],
    ["head=spinal", "protocol=paper", "recipe.lr_rule={name: redraw}", "recipe.optimizer=adam"],
    ["head=fc", "head.norm=true", "recipe.stages={2: 0.01, 4: 0.001}", "runtime.precision=bf16"],
    ["head=spinal", "head.dropout=0.3", "recipe.stages={3: 1.0}", "recipe.best_of_last_stage=true",
     "recipe.lr_rule={name: divide}", "runtime.save_every=0.05"],
    ["head=progressive", "recipe.lr_rule={name: redraw_late, start: 1}", "runtime.save_every=1000"],
]  # fmt: skip
POINTS = ("step", "evaluation", "half a file", "flush", "before rename", "after rename")
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
TIMES = {"finished", "timing", "wall_seconds", "images_per_second", "run"}
LONGEST = 120  # seconds a process may take


def die(*_: Any) -> None:
    """End this process as a kill from outside does."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, count: int) -> None:
    """Kill this process when it reaches a point for the ``count``-th time."""
    left = iter(range(count - 1, -1, -1))

    def come() -> None:
        if next(left, 1) == 0:
            die()

    def before(action: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: (come(), action(*given, **named))[1]

    def after(action: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: (action(*given, **named), come())[0]

    if point == "step":
        engine.training_loss = before(engine.training_loss)
    elif point == "evaluation":
        in_order = Batches.in_order

        def watched(self: Batches) -> Iterator[Any]:
            for batch in in_order(self):
                come()
                yield batch

        Batches.in_order = watched
    elif point == "half a file":
        write = io._write

        def half(path: Path, content: Any) -> None:
            if next(left, 1) == 0:
                parts = content if isinstance(content, list) else [content]
                data = b"".join(p.encode() if isinstance(p, str) else bytes(p) for p in parts)
                path.write_bytes(data[: len(data) // 2])
                die()
            write(path, content)

        io._write = half
    elif point == "flush":
        os.fsync = before(os.fsync)
    elif point == "before rename":
        Path.replace = before(Path.replace)
    else:
        Path.replace = after(Path.replace)


def start(config: Config, point: str, count: int, after: float) -> str:
    """Run in a process of its own, which is killed, gets a signal, or is left alone.

    Args:
        config: What to train.
        point: One of `POINTS`, ``time``, the name of a signal, or empty for no disturbance.
        count: At which time of reaching the point.
        after: Seconds until the kill or the signal from outside.

    Returns:
        ``done``, ``killed``, ``stopped`` (by a signal, as `Interrupted`) or ``early`` (by a signal
        before or after training).
    """
    child = os.fork()
    if child == 0:
        code = 1
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # before training it ends us as SIGTERM does
        last = LastEpoch()
        try:
            if point in POINTS:
                arm(point, count)
            run(config, [last])
            code = 0
        except Interrupted:  # no finished epoch may be lost
            code = EXIT_INTERRUPTED if saved(config.run_dir) >= last.epoch else 1
        except BaseException:
            traceback.print_exc()
        finally:  # with no call before it, in which one more signal could raise
            os._exit(code)
    outside = point == "time" or point in SIGNALS
    deadline = time.monotonic() + (after if outside else LONGEST)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(child, getattr(signal, point, signal.SIGKILL) if outside else signal.SIGKILL)
            assert outside, f"a process took more than {LONGEST} seconds"
            outside, deadline = False, time.monotonic() + LONGEST
        time.sleep(0.002)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        assert name in ("SIGKILL", point), f"a process was ended by {name}"
        return "killed" if name == "SIGKILL" else "early"
    return {0: "done", EXIT_INTERRUPTED: "stopped"}[os.WEXITSTATUS(status)]


class LastEpoch(Callback):
    """Number of the last epoch that this process finished."""

    epoch = 0

    def on_epoch_end(self, run: Run, is_best: bool) -> None:
        """Note the epoch."""
        self.epoch = run.state.epoch


def saved(folder: Path) -> int:
    """Epochs in the checkpoint; 0 without one."""
    path = folder / LAST
    return int(torch.load(path, weights_only=True)["state"]["epoch"]) if path.is_file() else 0


def left_by(folder: Path) -> dict[str, Any]:
    """All results of a finished run, without times."""
    record = {k: v for k, v in read_record(folder / "record.json").items() if k not in TIMES}
    with (folder / "metrics.csv").open() as file:
        rows = [{k: v for k, v in r.items() if "_accuracy" in k} for r in csv.DictReader(file)]
    checkpoint = torch.load(folder / LAST, weights_only=True)
    del checkpoint["state"]["timing"]
    return {
        "record": record,
        "metrics": rows,
        "predictions": (folder / "predictions.npz").read_bytes(),
        "weights": load_file(folder / "best.safetensors"),
        "checkpoint": checkpoint,
        "files": sorted(p.name for p in folder.iterdir() if p.suffix != ".partial"),
    }


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, tensors too."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def disturbed(config: Config, draw: random.Random, length: float, counts: Counter[str]) -> None:
    """Run one configuration until it is finished.

    Args:
        config: What to train.
        draw: Decides what happens when.
        length: Seconds of the undisturbed run.
        counts: Kills that happened and signals that stopped a run, by point; ``left`` are the kills
            and signals that are still to happen.
    """
    outcome = ""
    while outcome != "done":
        point = draw.choice([*POINTS, "time", *SIGNALS]) if counts["left"] > 0 else ""
        outcome = start(config, point, draw.randint(1, 12), draw.random() * length)
        assert outcome == "done" or point, f"an undisturbed process was {outcome}"
        if outcome in ("killed", "stopped"):
            counts[point] += 1
            counts["left"] -= 1
        if outcome == "stopped":
            assert io.read_json(config.run_dir / "status.json")["state"] == "interrupted"


def main() -> None:
    """Disturb runs until there were enough kills and signals, and compare each finished run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=60, help="kills and signals (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of what happens when (default: 0)")
    given = parser.parse_args()
    draw, counts, finished = random.Random(given.seed), Counter(left=given.kills), 0
    outputs.git_revision = dict  # the checkout may change meanwhile
    build_run(resolved(compose(BASE)), torch.device("cpu"))  # imports what is imported late
    while counts["left"] > 0:
        number = given.seed + finished
        overrides = [*BASE, *RUNS[number % len(RUNS)], f"seed={number}"]
        with tempfile.TemporaryDirectory() as place:
            whole, parts = (compose([*overrides, f"runs={place}/{n}"]) for n in ("whole", "parts"))
            began = time.monotonic()
            assert start(whole, "", 0, 0) == "done"
            disturbed(parts, draw, time.monotonic() - began, counts)
            expected, found = left_by(whole.run_dir), left_by(parts.run_dir)
        wrong = [key for key in expected if not same(expected[key], found[key])]
        wrong += [k for k, v in expected["record"].items() if v != found["record"].get(k)]
        assert not wrong, f"{overrides}: not the same: {wrong}"
        finished += 1
    del counts["left"]
    print(json.dumps({"kills": counts.total(), "at": dict(counts), "runs compared": finished}))


if __name__ == "__main__":
    main()
