"""How much gradient reaches the first layer of fully connected and of Spinal stacks.

Stacks of equal depth on the pixels, with as nearly equal multiplications as whole widths allow,
are trained for one epoch by the recipe of the small CNN (recipes 2.1).
"""

import itertools
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from spinal_repro.config.compose import compose
from spinal_repro.records.provenance import describe_environment, git_revision
from spinal_repro.records.record import GradientRecord, GradientRun
from spinal_repro.seeds import stream_seed
from spinal_repro.training.engine import Run, train_one_epoch
from spinal_repro.training.resolve import resolved
from spinal_repro.training.setup import build_run

FIXED = ("model=flatten", "protocol=paper", "recipe.epochs=1", "runtime.device=cpu")
SPINAL = ("head=spinal", "head.width=8")  # as in the small CNN


def gradients(dataset: str, seeds: int, depths: Sequence[int], init: str) -> GradientRecord:
    """Train both stacks of each depth with each seed, from ``default`` or ``he`` weights."""
    began, cpu, data = time.perf_counter(), torch.device("cpu"), {}
    runs = []
    for depth, seed in tqdm([*itertools.product(depths, range(seeds))], unit="pair", disable=None):
        head = [*SPINAL, f"head.layers={depth}"]
        for net in ("spinal", "fc"):
            config = compose([f"dataset={dataset}", f"seed={seed}", *FIXED, *head])
            setup = build_run(resolved(config), cpu)
            data, cost = setup.data, setup.counts["head_multiplications"]
            runs.append(GradientRun(net, depth, seed, cost, *measure(setup.run, init)))
            inputs = config.dataset.channels * config.input_size**2
            width = fc_width(inputs + config.dataset.outputs, depth, cost)
            head = ["head=fc", f"head.hidden={[width] * depth}"]
    made = describe_environment(cpu), git_revision(), time.strftime("%FT%TZ", time.gmtime())
    took = round(time.perf_counter() - began, 1)
    return GradientRecord(dataset, seeds, list(depths), init, data, *made, took, runs)


def fc_width(ends: int, depth: int, multiplications: int) -> int:
    """Solve ``ends w + (depth - 1) w^2 = multiplications``; ``ends`` is inputs plus outputs."""
    root = math.sqrt(ends**2 + 4 * (depth - 1) * multiplications)
    return round(2 * multiplications / (ends + root))


def measure(run: Run, init: str) -> tuple[list[float], list[float]]:
    """Train for an epoch; return each hidden layer's norm at the first step and its mean."""
    layers = [m for m in run.model.head.modules() if isinstance(m, nn.Linear)]
    generator = torch.Generator().manual_seed(stream_seed(run.seed, "head"))
    for layer in layers if init == "he" else ():
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
    found = watch(layers[:-1])
    train_one_epoch(run, 1)
    norms = torch.tensor(found)  # [layers, steps]
    start, epoch = ([float(f"{v:.6g}") for v in of] for of in (norms[:, 0], norms.mean(1)))
    return start, epoch


def watch(layers: Sequence[nn.Module]) -> list[list[Tensor]]:
    """Collect, by layer and step, the norm of the loss's gradient with respect to the output."""
    norms: list[list[Tensor]] = [[] for _ in layers]

    def keep(found: list[Tensor], layer: nn.Module, gradient: Any) -> None:
        found.append(gradient[0].norm())

    for layer, found in zip(layers, norms, strict=True):
        layer.register_full_backward_pre_hook(partial(keep, found))
    return norms
