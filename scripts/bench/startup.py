"""Measures the start of the commands, and of training up to its first step."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.timing import spread, take_turns

COMMANDS = {
    "spinal-train --help": ("train", ["--help"]),
    "spinal-train --cfg job": ("train", ["--cfg", "job"]),
    "spinal-train --cfg job dataset=mnist model=vgg5 recipe.lr=0.01": (
        "train",
        ["--cfg", "job", "dataset=mnist", "model=vgg5", "recipe.lr=0.01"],
    ),
    "spinal --help": ("spinal", ["--help"]),
    "spinal status": ("spinal", ["status"]),
}
# from the start of the process to the end of its first step, imports and data set included
FIRST_STEP = """
import os, time
started = float(os.environ["STARTED"])
import spinal_repro.cli.train
def first(optimizer, arguments, options):
    print("FIRST STEP", time.time() - started, flush=True)
    os._exit(0)
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(first)
spinal_repro.cli.train.main()
"""


def startup(repeats: int) -> list[dict[str, Any]]:
    """Measure each command in a folder with one complete run, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        _call(folder, "train", ["data.limit=100", "recipe.epochs=1", "runtime.progress=none"])
        contestants = {
            name: (lambda module=module, arguments=arguments: _call(folder, module, arguments))
            for name, (module, arguments) in COMMANDS.items()
        }
        contestants["spinal-train: to the end of the first step"] = lambda: _first_step(folder)
        measured = take_turns(contestants, repeats)
    return [{"command": name, "seconds": spread(values)} for name, values in measured.items()]


def _environment(folder: str) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SPINAL_")}
    return {**kept, "PYTHONPATH": root, "STARTED": str(time.time())}


def _call(folder: str, module: str, arguments: list[str]) -> float:
    code = f"from spinal_repro.cli.{module} import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    started = time.perf_counter()
    subprocess.run(
        command, cwd=folder, env=_environment(folder), stdout=subprocess.DEVNULL, check=True
    )
    return time.perf_counter() - started


def _first_step(folder: str) -> float:
    command = [sys.executable, "-c", FIRST_STEP, "data.limit=64", "runs=unfinished"]
    done = subprocess.run(
        command, cwd=folder, env=_environment(folder), capture_output=True, text=True, check=True
    )
    return float(done.stdout.split("FIRST STEP")[1])
