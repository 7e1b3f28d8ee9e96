"""Counting of parameters, multiplications and activations."""

from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from spinal_repro.models.classifier import Classifier
from spinal_repro.models.heads.common import is_activation
from spinal_repro.models.surgery import evaluation_mode

aten = torch.ops.aten
# index of the argument whose second-to-last dimension is the length of the inner products
PRODUCTS = {aten.mm: 1, aten.bmm: 1, aten.addmm: 2, aten.baddbmm: 2}


def count(classifier: Classifier, channels: int, image_size: int) -> dict[str, int]:
    """Count a classifier by running one blank image through it in evaluation mode.

    Returns the parameters of body, head and both, the multiplications of the head and of all, and
    the activations of the head, without auxiliary outputs, which are for training. Parameters are
    trainable ones. Multiplications are those of linear layers, convolutions and attention as
    executed (a layer called k times counts k times). Activations are outputs of the head's
    activation functions, so layers with ``identity`` have none.
    """
    device = next(classifier.parameters()).device
    image = torch.zeros(1, channels, image_size, image_size, device=device)
    units: list[int] = []
    # fused attention would hide its matrix products, and on the CPU alone
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    attention = sdpa_kernel(SDPBackend.MATH)
    try:
        with evaluation_mode(classifier), attention, MultiplicationCounter() as counter:
            features = classifier.backbone(image)
            in_body = counter.total
            with register_module_forward_hook(
                lambda module, _, out: units.append(out.numel() if is_activation(module) else 0)
            ):
                classifier.head(features)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    body, head = _parameters(classifier.backbone), _parameters(classifier.head)
    body -= sum(_parameters(module) for module in getattr(classifier.backbone, "aux_modules", ()))
    return {
        "body_parameters": body,
        "head_parameters": head,
        "total_parameters": body + head,
        "head_multiplications": counter.total - in_body,
        "total_multiplications": counter.total,
        "head_activations": sum(units),
    }


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


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
