"""The device of the tests in tests/cuda, and small runs on it.

``SPINAL_TEST_DEVICE=cpu pytest tests/cuda`` rehearses on the CPU what does not need CUDA.
"""

import os
from pathlib import Path

import pytest
import torch

from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Config
from spinal_repro.training.engine import Run
from spinal_repro.training.setup import build_run, resolved

# Read when cuBLAS starts, which is before the first deterministic run of these tests.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

DEVICE = torch.device(os.environ.get("SPINAL_TEST_DEVICE", "cuda"))
MISSING = DEVICE.type == "cuda" and not torch.cuda.is_available()
MARKS = [
    pytest.mark.cuda,
    pytest.mark.xdist_group("cuda"),
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


def small_overrides(runs: Path, *overrides: str) -> list[str]:
    return [f"runs={runs}", *SMALL, *overrides]


def small(runs: Path, *overrides: str) -> Config:
    return compose(small_overrides(runs, *overrides))


def built(config: Config) -> Run:
    return build_run(resolved(config), DEVICE).run
