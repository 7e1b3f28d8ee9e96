"""The device of the tests in tests/cuda, and small runs on it.

``SPINAL_TEST_DEVICE=cpu pytest tests/cuda`` rehearses on the CPU what does not need CUDA.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Config
from spinal_repro.training.callbacks import NonFiniteCheck, Progress, StopOnSignal
from spinal_repro.training.checkpoint import Checkpoint
from spinal_repro.training.engine import Callback, Run, start_stage
from spinal_repro.training.resolve import resolved
from spinal_repro.training.setup import build_run

# Read when cuBLAS starts, which is before the first deterministic run of these tests.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

DEVICE = torch.device(os.environ.get("SPINAL_TEST_DEVICE", "cuda"))
MISSING = DEVICE.type == "cuda" and not torch.cuda.is_available()
MARKS = [
    pytest.mark.cuda,
    pytest.mark.skipif(MISSING, reason="no CUDA device (SPINAL_TEST_DEVICE=cpu rehearses)"),
]
cuda_only = pytest.mark.skipif(DEVICE.type != "cuda", reason="tests CUDA itself")

# dropout, batch norm and augmentation; 3 steps an epoch; a checkpoint after each
SMALL = [
    "data.limit=96", "recipe.epochs=4", "recipe.batch_size=32", "recipe.eval_batch_size=40",
    "head=fc", "head.norm=true", "recipe.augment=[{name: rotation, degrees: 9}]",
    "runtime.progress=none", "runtime.save_every=0", "runtime.threads=1",
    f"runtime.device={DEVICE.type}",
]  # fmt: skip

# networks and heads whose steps are compared with the CPU's, and watched on fake devices
COLOUR = ["dataset.channels=3", "dataset.image_size=32"]
CASES = {
    "cnn": ["model=cnn", "head=fc"],
    "flatten": ["model=flatten", "head=linear"],
    "vgg5": ["model=vgg5", "head=spinal"],
    "arch2": ["model=arch2", "head=arch2"],
    "vgg11_bn": ["model=vgg11_bn", "head=spinal", *COLOUR],
    "resnet18_thin": ["model=resnet18_thin", "head=spinal", *COLOUR],
    "torchvision": ["model=torchvision", "model.name=resnet18", "head=fc", *COLOUR],
    "timm": ["model=timm", "model.name=test_efficientnet", "head=fc", *COLOUR],
    "progressive": ["model=cnn", "head=progressive", "head.norm=true"],
    "shared": ["model=cnn", "head=spinal", "head.shared=true", "head.layers=8"],
    "dropout": ["model=cnn", "head=spinal", "head.dropout=0.5", "head.norm=true"],
}


def begun(run: Run, folder: Path) -> list[Callback]:
    """The callbacks of a run, at the start of its first epoch."""
    of_a_run = [
        NonFiniteCheck(), Progress(folder / "log.txt", "none"), StopOnSignal(),
        Checkpoint(folder, None, {}),
    ]  # fmt: skip
    for callback in of_a_run:
        callback.on_fit_start(run)
    start_stage(run, 1)
    return of_a_run


class AfterStep(Callback):
    """Calls a function after each step."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def on_step_end(self, *_: object) -> None:
        self.call()


def small_overrides(runs: Path, *overrides: str) -> list[str]:
    return [f"runs={runs}", *SMALL, *overrides]


def small(runs: Path, *overrides: str) -> Config:
    return compose(small_overrides(runs, *overrides))


def built(config: Config) -> Run:
    return build_run(resolved(config), DEVICE).run
