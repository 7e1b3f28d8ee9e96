"""Multiplications are counted as PyTorch's own counter does, which takes seconds to import."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spinal_repro.models.counting import MultiplicationCounter


class Products(nn.Module):
    def forward(self, x):
        batched = torch.bmm(x, x.transpose(1, 2))
        return torch.baddbmm(batched, x, x.transpose(1, 2)) @ torch.ones(x.shape[1], 4)


@pytest.mark.parametrize(
    "module, shape",
    [
        (nn.Linear(7, 5), (3, 7)),
        (nn.Linear(7, 5, bias=False), (3, 7)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 9, 9)),
        (nn.Conv2d(4, 8, 3, groups=2), (1, 4, 9, 9)),
        (nn.ConvTranspose2d(4, 6, 3), (2, 4, 5, 5)),
        (Products(), (2, 6, 5)),
    ],
    ids=["linear", "no_bias", "conv", "groups", "transposed", "products"],
)
def test_the_counts_are_half_of_pytorch_s(module, shape):
    x = torch.randn(shape)
    with torch.no_grad(), FlopCounterMode(display=False) as theirs:
        expected = module(x)
    with torch.no_grad(), MultiplicationCounter() as ours:
        found = module(x)
    assert torch.equal(found, expected)
    assert 2 * ours.total == theirs.get_total_flops() > 0
