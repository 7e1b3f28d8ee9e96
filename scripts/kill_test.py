"""Kill a training again and again at drawn points; what comes out must be what it would have been.

    python scripts/kill_test.py --kills 50 --seed 0

Each sitting of a run is a process of its own that continues from whatever files are there. It is
killed by SIGKILL at a drawn point (inside a step, inside an evaluation, in the middle of writing a
file, before its flush, around its renames) or at a drawn time, or asked to stop by a signal. A run
that finishes is compared with one that nobody disturbed: weights, optimizer, history, record,
metrics and predictions, bit for bit, save for times. The processes are forked from one that has
imported everything, so that a kill costs little; nothing in the package knows of this test.
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

from spinal_repro import files
from spinal_repro.config import compose
from spinal_repro.data.loader import Batches
from spinal_repro.errors import EXIT_INTERRUPTED
from spinal_repro.records import read_record
from spinal_repro.schema import Config
from spinal_repro.training import loop, report
from spinal_repro.training.checkpoint import _read
from spinal_repro.training.run import _prepare, run

BASE = [
    "data.limit=120", "recipe.epochs=4", "recipe.batch_size=16", "runtime.progress=none",
    "runtime.device=cpu", "runtime.threads=1", "runtime.save_every=0",
]  # fmt: skip
# Dropout (fc), batch norm, augmentation, stages, every kind of rule and optimizer, both protocols.
RUNS = [
    ["head=fc", "recipe.augment=[{name: rotation, degrees: 10}]"],
    ["head=spinal", "protocol=paper", "recipe.lr_rule={name: redraw}", "recipe.optimizer=adam"],
    ["head=fc", "head.norm=true", "recipe.stages={2: 0.01, 4: 0.001}", "runtime.precision=bf16"],
    ["head=spinal", "head.dropout=0.3", "recipe.stages={3: 1.0}", "recipe.best_of_last_stage=true",
     "recipe.lr_rule={name: divide}", "runtime.save_every=0.05"],
    ["head=progressive", "recipe.lr_rule={name: redraw_late, start: 1}"],
]  # fmt: skip
POINTS = ("step", "evaluation", "half a file", "flush", "before rename", "after rename")
TIMES = {"finished", "timing", "wall_seconds", "images_per_second", "run"}
LONGEST = 120  # seconds a sitting may take


def die(*_: Any) -> None:
    """What no handler sees."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, count: int) -> None:
    """Have this process die at the ``count``-th time that it comes to a point."""
    left = iter(range(count - 1, -1, -1))

    def come() -> None:
        if next(left, 1) == 0:
            die()

    def before(action: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: (come(), action(*given, **named))[1]

    def after(action: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: (action(*given, **named), come())[0]

    if point == "step":
        loop.training_loss = before(loop.training_loss)
    elif point == "evaluation":
        in_order = Batches.in_order

        def watched(self: Batches) -> Iterator[Any]:
            for batch in in_order(self):
                come()
                yield batch

        Batches.in_order = watched
    elif point == "half a file":
        write = files._write

        def half(path: Path, content: Any) -> None:
            if next(left, 1) == 0:
                parts = content if isinstance(content, list) else [content]
                data = b"".join(p.encode() if isinstance(p, str) else bytes(p) for p in parts)
                path.write_bytes(data[: len(data) // 2])
                die()
            write(path, content)

        files._write = half
    elif point == "flush":
        os.fsync = before(os.fsync)
    elif point == "before rename":
        Path.replace = before(Path.replace)
    else:
        Path.replace = after(Path.replace)


def sitting(config: Config, point: str, count: int, after: float) -> str:
    """One process that trains until it is done or ended.

    Args:
        config: What to train.
        point: One of `POINTS`, ``time`` or the name of a signal; empty for no disturbance.
        count: At which time of coming to the point.
        after: Seconds until a kill or a signal from outside.

    Returns:
        ``done``, ``killed``, ``saved`` or ``early``.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if point in POINTS:
                arm(point, count)
            run(config)
            code = 0
        except KeyboardInterrupt:  # `Interrupted`, or SIGINT before anybody listened
            code = EXIT_INTERRUPTED
        except BaseException:
            traceback.print_exc()
        finally:  # with no call before it, in which one more signal could raise
            os._exit(code)
    deadline = time.monotonic() + (after if point and point not in POINTS else LONGEST)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(child, getattr(signal, point, signal.SIGKILL))
            deadline = time.monotonic() + LONGEST
        time.sleep(0.002)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        assert name in ("SIGKILL", point), f"a sitting was ended by {name}"
        return "killed" if name == "SIGKILL" else "early"  # before, or after, there was a handler
    code = os.WEXITSTATUS(status)
    assert code in (0, EXIT_INTERRUPTED), f"a sitting ended with {code}"
    return "done" if code == 0 else "saved"


def left_by(folder: Path) -> dict[str, Any]:
    """Everything that a finished run leaves, without times."""
    record = {k: v for k, v in read_record(folder / "record.json").items() if k not in TIMES}
    record["config"]["runtime"]["progress"] = ""
    with (folder / "metrics.csv").open() as file:
        rows = [{k: v for k, v in r.items() if "_accuracy" in k} for r in csv.DictReader(file)]
    checkpoint = _read(folder / "last.pt")
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
    """Equality to the bit, tensors and all."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def main() -> None:
    """Kill until there were enough kills, then let every run finish and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw, kills, signals, finished = random.Random(given.seed), Counter(), Counter(), 0
    report.git_revision = dict  # the checkout may be worked on meanwhile
    _prepare(compose(BASE), torch.device("cpu"))  # what is imported late, imported once for all
    with tempfile.TemporaryDirectory() as place:
        seed = 0
        while kills.total() < given.kills:
            overrides = [*BASE, *RUNS[seed % len(RUNS)], f"seed={seed}"]
            whole = compose([*overrides, f"runs={place}/whole"])
            began = time.monotonic()
            assert sitting(whole, "", 0, 0) == "done"
            length = time.monotonic() - began
            parts = compose([*overrides, f"runs={place}/parts"])
            outcome = ""
            while outcome != "done":
                points = [*POINTS, "time", "SIGTERM", "SIGINT", "SIGUSR1"]
                point = draw.choice(points) if kills.total() < given.kills else ""
                outcome = sitting(parts, point, draw.randint(1, 12), draw.random() * length)
                kills[point] += outcome == "killed"
                signals[point] += outcome == "saved"
            expected, found = left_by(whole.run_dir), left_by(parts.run_dir)
            wrong = [key for key in expected if not same(expected[key], found[key])]
            wrong += [k for k, v in expected["record"].items() if v != found["record"].get(k)]
            assert not wrong, f"{overrides}: not the same: {wrong}"
            finished, seed = finished + 1, seed + 1
    print(json.dumps({"kills": kills.total(), "at": dict(+kills), "saved": dict(+signals),
                      "runs compared": finished}))  # fmt: skip


if __name__ == "__main__":
    main()
