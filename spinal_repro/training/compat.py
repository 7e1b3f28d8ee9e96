"""Optimizers from private parts of PyTorch; tests/training/test_compat.py names versions."""

from inspect import unwrap

import torch
from torch import optim


class _Plain(optim.Optimizer):
    """An optimizer without the decorators for ``torch.compile``.

    They import ``torch._dynamo`` when the optimizer is built, which takes two seconds. No
    optimizer is compiled here; numerics and ``state_dict`` are the same.
    """

    add_param_group = unwrap(optim.Optimizer.add_param_group)
    zero_grad = unwrap(optim.Optimizer.zero_grad)
    state_dict = unwrap(optim.Optimizer.state_dict)
    load_state_dict = unwrap(optim.Optimizer.load_state_dict)


class SGD(_Plain, optim.SGD):
    """`torch.optim.SGD`."""

    step = torch.no_grad()(unwrap(optim.SGD.step))


class Adam(_Plain, optim.Adam):
    """`torch.optim.Adam`."""

    step = torch.no_grad()(unwrap(optim.Adam.step))
