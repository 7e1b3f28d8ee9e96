"""The Spinal head against the loop that the paper's scripts write out, and what its size costs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.timing import ratio, repeated, spread, take_turns
from spinal_repro.heads import FCHead, SpinalHead

# widths, features and styles of the paper's heads (recipes 2.1 to 2.8)
PAPER: dict[str, dict[str, Any]] = {
    "cnn": {"in_features": 320, "width": 8, "layers": 6},
    "vgg5": {"in_features": 256, "width": 128, "layers": 4, "dropout": 0.5, "norm": True},
    "cifar_cnn": {"in_features": 4096, "width": 128, "layers": 4, "dropout": 0.1},
    "resnet18_thin": {"in_features": 1024, "width": 256, "layers": 4, "splits": 4},
    "vgg16_bn": {"in_features": 512, "width": 512, "layers": 4, "dropout": 0.5},
    "wide_resnet101_2": {"in_features": 2048, "width": 1024, "layers": 4, "dropout": 0.5},
}


def straightforward(head: SpinalHead) -> Callable[[Tensor], Tensor]:
    """The same function written out: a slice and the last output side by side, layer by layer."""

    def forward(features: Tensor) -> Tensor:
        size, width = head.slice_size, head.in_features
        outputs: list[Tensor] = []
        for k, layer in enumerate(head.layers):
            start = k * size % width
            part = features[:, start : start + size]
            outputs.append(layer(torch.cat([part, outputs[-1]], dim=1) if k else part))
        logits: Tensor = head.output(torch.cat(outputs, dim=1))
        return logits

    return forward


def both_ways(
    head: nn.Module, forward: Callable[[Tensor], Tensor], features: Tensor, labels: Tensor
) -> Callable[[], None]:
    """Forward and backward, to the features as well; gradients are dropped, as in training."""
    parameters = list(head.parameters())

    def work() -> None:
        loss = functional.cross_entropy(forward(features), labels)
        loss.backward()
        features.grad = None
        for parameter in parameters:
            parameter.grad = None

    return work


def _inputs(features: int, classes: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    inputs = torch.randn(batch, features, device=device, requires_grad=True)
    return inputs, torch.randint(0, classes, (batch,), device=device)


def compare_heads(
    batches: Sequence[int], device: torch.device, at_least: float, repeats: int
) -> list[dict[str, Any]]:
    """Our head and the straightforward loop at the paper's widths, forward and backward."""
    rows = []
    for name, options in PAPER.items():
        for batch in batches:
            size = dict(options)
            head = SpinalHead(size.pop("in_features"), 10, **size).to(device).train()
            inputs, labels = _inputs(head.in_features, 10, batch, device)
            work = {
                "ours": both_ways(head, head, inputs, labels),
                "straightforward": both_ways(head, straightforward(head), inputs, labels),
            }
            measured = take_turns(
                {key: repeated(do, device, at_least) for key, do in work.items()}, repeats
            )
            rows.append(
                {
                    "head": name,
                    "features": head.in_features,
                    "width": head.width,
                    "layers": head.num_layers,
                    "batch": batch,
                    **{f"{key}_us": spread([1e6 * s for s in v]) for key, v in measured.items()},
                    "ratio": ratio(measured["straightforward"], measured["ours"]),
                }
            )
    return rows


def costs(device: torch.device, at_least: float, repeats: int) -> list[dict[str, Any]]:
    """Both heads on 512 features while one size changes and the others stay.

    The FC head has one hidden layer of as many units as the Spinal head has in all.
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
                        both_ways(head.to(device), head, inputs, labels), device, at_least
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
