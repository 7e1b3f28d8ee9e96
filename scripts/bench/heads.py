"""The Spinal head against two ways to compute it otherwise, and what its size costs.

Ours is the straightforward loop. ``split`` multiplies features and last output by parts of the
weights instead of laying them side by side; ``block`` besides multiplies the features by the
weights of all layers that read the same slice at once, before the loop (it needs a head without
dropout, which would hide other features from each layer).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from bench.timing import ratio, repeated, spread, take_turns
from spinal_repro.models.heads import FCHead, SpinalHead

# widths, features and styles of the paper's heads (recipes 2.1 to 2.8)
PAPER: dict[str, dict[str, Any]] = {
    "cnn": {"in_features": 320, "width": 8, "layers": 6},
    "vgg5": {"in_features": 256, "width": 128, "layers": 4, "dropout": 0.5, "norm": True},
    "cifar_cnn": {"in_features": 4096, "width": 128, "layers": 4, "dropout": 0.1},
    "resnet18_thin": {"in_features": 1024, "width": 256, "layers": 4, "splits": 4},
    "vgg16_bn": {"in_features": 512, "width": 512, "layers": 4, "dropout": 0.5},
    "wide_resnet101_2": {"in_features": 2048, "width": 1024, "layers": 4, "dropout": 0.5},
}


def split(head: SpinalHead) -> Callable[[Tensor], Tensor]:
    """The same function without laying features and last output side by side."""
    layers = [_parts(layer) for layer in head.layers]
    sizes = [head.slice_size, head.width]

    def forward(features: Tensor) -> Tensor:
        slices = features.split(head.slice_size, dim=1)
        outputs: list[Tensor] = []
        for k, (before, linear, after) in enumerate(layers):
            z = before(slices[k % len(slices)])
            if k:
                own, recurrent = linear.weight.split(sizes, dim=1)
                z = functional.linear(z, own, linear.bias)
                z = torch.addmm(z, before(outputs[-1]), recurrent.t())
            else:
                z = linear(z)
            outputs.append(after(z))
        logits: Tensor = head.output(torch.cat(outputs, dim=1))
        return logits

    return forward


def block(head: SpinalHead) -> Callable[[Tensor], Tensor]:
    """The same function with one product for all layers that read the same slice."""
    layers = [_parts(layer) for layer in head.layers]
    size, width, count = head.slice_size, head.width, head.num_layers

    def forward(features: Tensor) -> Tensor:
        slices = features.split(size, dim=1)
        weights = [linear.weight.split(size, dim=1) for _, linear, _ in layers[:1]]
        weights += [linear.weight.split([size, width], dim=1) for _, linear, _ in layers[1:]]
        ready: dict[int, Tensor] = {}
        for place, part in enumerate(slices[:count]):
            own = range(place, count, len(slices))
            weight = torch.cat([weights[k][0] for k in own])
            bias = torch.cat([layers[k][1].bias for k in own])
            products = functional.linear(part, weight, bias).split(width, dim=1)
            ready |= dict(zip(own, products, strict=True))
        outputs: list[Tensor] = []
        for k, (_, _, after) in enumerate(layers):
            z = torch.addmm(ready[k], outputs[-1], weights[k][1].t()) if k else ready[0]
            outputs.append(after(z))
        logits: Tensor = head.output(torch.cat(outputs, dim=1))
        return logits

    return forward


def _parts(layer: nn.Module) -> tuple[nn.Module, nn.Linear, nn.Module]:
    """What stands before the Linear of a layer, the Linear, and what stands behind it."""
    modules = list(layer.children())
    (place,) = (k for k, module in enumerate(modules) if isinstance(module, nn.Linear))
    linear = modules[place]
    assert isinstance(linear, nn.Linear)
    return nn.Sequential(*modules[:place]), linear, nn.Sequential(*modules[place + 1 :])


def operations(work: Callable[[], None]) -> int:
    """Operations that compute something (views do not): on a GPU, about as many kernels."""

    class Counter(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            self.total += not func.is_view
            return func(*args, **(kwargs or {}))

    with Counter() as counter:
        work()
    return counter.total


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
    """Our head and the other ways at the paper's widths, forward and backward."""
    rows = []
    for name, options in PAPER.items():
        for batch in batches:
            size = dict(options)
            head = SpinalHead(size.pop("in_features"), 10, **size).to(device).train()
            inputs, labels = _inputs(head.in_features, 10, batch, device)
            ways = {"ours": head, "split": split(head)}
            if not size.get("dropout"):
                ways["block"] = block(head)
            _check_equal(head, ways, inputs)
            work = {name: both_ways(head, way, inputs, labels) for name, way in ways.items()}
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
                    "dropout": size.get("dropout", 0.0),
                    **{f"{key}_us": spread([1e6 * s for s in v]) for key, v in measured.items()},
                    **{f"{key}_operations": operations(do) for key, do in work.items()},
                    **{
                        f"{key}_ratio": ratio(measured["ours"], values)
                        for key, values in measured.items()
                        if key != "ours"
                    },
                }
            )
    return rows


def _check_equal(
    head: SpinalHead, ways: dict[str, Callable[[Tensor], Tensor]], inputs: Tensor
) -> None:
    """Without dropout all ways compute the same, with the same gradients."""
    head.eval()
    found = {}
    for name, way in ways.items():
        logits = way(inputs)
        gradients = torch.autograd.grad(logits.square().mean(), [inputs, *head.parameters()])
        found[name] = [logits, *gradients]
    for name in ways:
        torch.testing.assert_close(found[name], found["ours"], rtol=1e-3, atol=1e-4)
    head.train()


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
