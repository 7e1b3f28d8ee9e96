"""Multiplications of a forward pass, counted as it runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# which argument holds the weights: one output takes as many multiplications as its inner length
PRODUCTS = {aten.mm: 1, aten.bmm: 1, aten.addmm: 2, aten.baddbmm: 2}
CONVOLUTIONS = (aten.convolution,)


class MultiplicationCounter(TorchDispatchMode):
    """Context that counts the multiplications of matrix products and convolutions in it.

    PyTorch's own `torch.utils.flop_counter` counts the same, twice (a multiply-add is two), and
    more; but it imports Triton and, at the first operation, the compiler: seconds before the
    first step of every run.

    Attributes:
        total: Multiplications so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled in here; to say so would import the compiler

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation, and count it."""
        result = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        if operation in PRODUCTS:
            self.total += result.numel() * args[PRODUCTS[operation]].shape[-2]
        elif operation in CONVOLUTIONS:
            transposed, weight = args[6], args[1]
            outputs = args[0] if transposed else result  # each value meets a whole kernel
            self.total += outputs.numel() * weight[0].numel()
        return result
