"""Counting of parameters, multiplications and activations."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from spinal_repro.models.classifier import Classifier
from spinal_repro.models.heads.common import is_activation
from spinal_repro.models.surgery import evaluation_mode

aten = torch.ops.aten
# index of the argument whose second-to-last dimension is the length of the inner products
PRODUCTS = {aten.mm: 1, aten.bmm: 1, aten.addmm: 2, aten.baddbmm: 2}


@dataclass(frozen=True)
class Counts:
    """Size of a classifier for one image, without auxiliary outputs, which are for training.

    Parameters are trainable ones. Multiplications are those of linear layers, convolutions and
    attention as executed (a layer called k times counts k times). Activations are outputs of the
    head's activation functions, so layers with ``identity`` have none.
    """

    body_parameters: int
    head_parameters: int
    total_parameters: int
    head_multiplications: int
    total_multiplications: int
    head_activations: int


def count(classifier: Classifier, channels: int, image_size: int) -> Counts:
    """Count a classifier by running one blank image through it in evaluation mode."""
    device = next(classifier.parameters()).device
    image = torch.zeros(1, channels, image_size, image_size, device=device)
    units: list[int] = []
    with evaluation_mode(classifier):
        in_body, features = _multiplications(classifier.backbone, image)
        with register_module_forward_hook(
            lambda module, _, output: units.append(output.numel() if is_activation(module) else 0)
        ):
            in_head, _ = _multiplications(classifier.head, features)
    body, head = _parameters(classifier.backbone), _parameters(classifier.head)
    body -= sum(_parameters(module) for module in getattr(classifier.backbone, "aux_modules", ()))
    return Counts(
        body_parameters=body,
        head_parameters=head,
        total_parameters=body + head,
        head_multiplications=in_head,
        total_multiplications=in_body + in_head,
        head_activations=sum(units),
    )


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _multiplications(module: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    """Run a module; return its multiplications and its output."""
    # fused attention would hide its matrix products, and on the CPU alone
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), MultiplicationCounter() as counter:
            output = module(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.total, output


class MultiplicationCounter(TorchDispatchMode):
    """Sums the multiplications of matrix products and convolutions in ``total``.

    `torch.utils.flop_counter` counts the same and more, with two operations per multiply-add.
    But it imports Triton and the compiler, which takes seconds before the first step of a run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here; True would import the compiler

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        if operation in PRODUCTS:
            self.total += result.numel() * args[PRODUCTS[operation]].shape[-2]
        elif operation == aten.convolution:
            transposed, weight = args[6], args[1]
            outputs = args[0] if transposed else result  # each value uses one whole kernel
            self.total += outputs.numel() * weight[0].numel()
        return result
