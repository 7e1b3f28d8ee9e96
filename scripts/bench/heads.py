"""Time of heads by size: Spinal against one hidden layer with as many units."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.timing import ratio, repeated, spread, take_turns
from spinal_repro.models.heads import FCHead, SpinalHead


def forward_and_backward(head: nn.Module, features: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return one step without an update; gradients are dropped afterwards, as in training."""
    parameters = list(head.parameters())

    def work() -> None:
        loss = functional.cross_entropy(head(features), labels)
        loss.backward()
        features.grad = None
        for parameter in parameters:
            parameter.grad = None

    return work


def _inputs(features: int, classes: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    inputs = torch.randn(batch, features, device=device, requires_grad=True)
    return inputs, torch.randint(0, classes, (batch,), device=device)


def costs(device: torch.device, at_least: float, repeats: int) -> list[dict[str, Any]]:
    """Time both heads on 512 features while one size changes.

    The FC head has one hidden layer with as many units as all Spinal layers together.
    """
    base = {"width": 128, "layers": 4, "batch": 100, "classes": 10}
    varied = {
        "width": (8, 32, 128, 512),
        "layers": (2, 4, 8, 16),
        "batch": (10, 100, 1000),
        "classes": (10, 100, 1000),
    }
    rows = []
    for what, values in varied.items():
        for value in values:
            size = base | {what: value}
            layers, width, classes = size["layers"], size["width"], size["classes"]
            heads = {
                "spinal": SpinalHead(512, classes, width=width, layers=layers),
                "fc": FCHead(512, classes, hidden=(width * layers,)),
            }
            inputs, labels = _inputs(512, classes, size["batch"], device)
            measured = take_turns(
                {
                    name: repeated(
                        forward_and_backward(head.to(device), inputs, labels), device, at_least
                    )
                    for name, head in heads.items()
                },
                repeats,
            )
            rows.append(
                {
                    "varied": what,
                    **size,
                    **{f"{name}_us": spread([1e6 * s for s in v]) for name, v in measured.items()},
                    "ratio": ratio(measured["spinal"], measured["fc"]),
                }
            )
    return rows
