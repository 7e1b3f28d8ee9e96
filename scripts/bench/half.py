"""The bare step with weights in bf16, to see whether our loop should have them."""

import dataclasses
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from spinal_repro.training.engine import Run
from spinal_repro.training.optim import build_optimizer


def with_bf16_weights(run: Run) -> Run:
    """Convert the weights, except those of batch norm; the optimizer updates copies in fp32."""
    weights = list(run.model.parameters())
    masters = [nn.Parameter(weight.detach().clone()) for weight in weights]
    for module in run.model.modules():
        if not isinstance(module, _BatchNorm):
            own: list[Any] = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            for tensor in own:
                tensor.data = tensor.data.bfloat16()
    optimizer = build_optimizer(run.recipe, masters)
    update = optimizer.step

    @torch.no_grad()
    def step() -> None:
        for master in masters:
            master.grad = torch.empty_like(master)
        torch._foreach_copy_([m.grad for m in masters], [w.grad for w in weights])
        run.model.zero_grad()
        update()
        torch._foreach_copy_(weights, masters)

    optimizer.step = step  # type: ignore[assignment, method-assign]
    return dataclasses.replace(run, optimizer=optimizer, autocast=nullcontext)
