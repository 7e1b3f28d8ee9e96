"""Counts against PyTorch's own counter, closed forms and the paper's claims."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spinal_repro.config.schema import Component, DatasetConfig
from spinal_repro.models.classifier import build_model
from spinal_repro.models.counting import MultiplicationCounter, count

VGG5_FC = Component("fc", {"hidden": [512], "dropout": [0.5, 0.5], "norm": True})
VGG5_SPINAL = Component("spinal", {"width": 128, "layers": 4, "dropout": 0.5, "norm": True})
# inputs, outputs and side of the map of each convolution (recipes 2.3)
VGG5_CONVS = [(1, 64, 28), (64, 64, 28), (64, 128, 14), (128, 128, 14), (128, 256, 7)]
VGG5_CONVS += [(256, 256, 7), (256, 256, 7), (256, 256, 3), (256, 256, 3), (256, 256, 3)]


DATASET = DatasetConfig(
    name="x", title="x", source="x", num_classes=62, image_size=28, channels=1,
    train_size=1, test_size=1,
)  # fmt: skip


def vgg5(head: Component) -> nn.Module:
    return build_model(DATASET, Component("vgg5", {}), head)


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
)
def test_multiplications_are_half_of_pytorchs_operations(module, shape):
    x = torch.randn(shape)
    with torch.no_grad(), FlopCounterMode(display=False) as theirs:
        expected = module(x)
    with torch.no_grad(), MultiplicationCounter() as ours:
        found = module(x)
    assert torch.equal(found, expected)
    assert 2 * ours.total == theirs.get_total_flops() > 0


def test_vgg5():
    products = sum(9 * i * o * side * side for i, o, side in VGG5_CONVS)
    parameters = sum(9 * i * o + o + 2 * o for i, o, _ in VGG5_CONVS)  # 2 o: batch norm
    for head, expected in ((VGG5_FC, 164_414), (VGG5_SPINAL, 148_030)):
        found = count(vgg5(head), 1, 28)
        assert (found["body_parameters"], found["head_parameters"]) == (parameters, expected)
        assert found["total_multiplications"] - found["head_multiplications"] == products
        assert found["head_activations"] == 512


@pytest.mark.parametrize(
    ("kind", "name"), [("timm", "vit_tiny_patch16_224"), ("torchvision", "vit_b_16")]
)
def test_attention_counts_in_full_on_every_device(kind, name):
    """12 blocks of 12 width^2 in Linear layers and 2 tokens x width in attention, per token."""
    width, tokens, side = (192 if kind == "timm" else 768), 4 + 1, 32
    dense = 12 * tokens * (12 * width**2 + 2 * tokens * width)
    patches = (tokens - 1) * 3 * 16 * 16 * width
    data = dataclasses.replace(DATASET, image_size=side, channels=3)
    for device in ("cpu", "meta"):
        with torch.device(device):
            model = build_model(data, Component(name, {}, kind), Component("fc", {}))
        fast = torch.backends.mha.get_fastpath_enabled()
        found = count(model, 3, side)
        assert found["total_multiplications"] - found["head_multiplications"] == dense + patches
        assert torch.backends.mha.get_fastpath_enabled() == fast


def test_counting_changes_nothing_and_leaves_out_frozen_parameters():
    model = vgg5(VGG5_SPINAL)
    whole = count(model, 1, 28)
    model.freeze(True)  # the backbone evaluates, the head trains
    modes = [m.training for m in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    frozen = count(model, 1, 28)
    assert (frozen["body_parameters"], frozen["head_parameters"]) == (0, whole["head_parameters"])
    assert frozen["total_multiplications"] == whole["total_multiplications"]
    assert [m.training for m in model.modules()] == modes and len(set(modes)) == 2
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
