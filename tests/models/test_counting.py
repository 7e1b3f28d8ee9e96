"""Counts against PyTorch's own counter, closed forms and the paper's claims."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spinal_repro.config.schema import Component, DatasetConfig
from spinal_repro.models.classifier import build_model
from spinal_repro.models.counting import Counts, MultiplicationCounter, count

CNN, VGG5, FLATTEN = (Component(name, {}) for name in ("cnn", "vgg5", "flatten"))
CNN_FC = Component("fc", {"hidden": [50], "dropout": [0.0, 0.5]})
VGG5_FC = Component("fc", {"hidden": [512], "dropout": [0.5, 0.5], "norm": True})
VGG5_SPINAL = Component("spinal", {"width": 128, "layers": 4, "dropout": 0.5, "norm": True})
# inputs, outputs and side of the map of each convolution (recipes 2.3)
VGG5_CONVS = [(1, 64, 28), (64, 64, 28), (64, 128, 14), (128, 128, 14), (128, 256, 7)]
VGG5_CONVS += [(256, 256, 7), (256, 256, 7), (256, 256, 3), (256, 256, 3), (256, 256, 3)]


def dataset(outputs: int = 10) -> DatasetConfig:
    return DatasetConfig(
        name="x", title="x", source="x", num_classes=outputs, image_size=28, channels=1,
        train_size=1, test_size=1,
    )  # fmt: skip


def counts(model: Component, head: Component, outputs: int = 10) -> Counts:
    return count(build_model(dataset(outputs), model, head), 1, 28)


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


def test_claims_about_the_small_cnn():
    """48.5 % fewer multiplications, 4 % fewer activations (recipes 3.1)."""
    fc = counts(CNN, CNN_FC)
    spinal = counts(CNN, Component("spinal", {"width": 8, "layers": 6}))
    body = (25 * 10 + 10) + (25 * 10 * 20 + 20), 25 * 10 * 24 * 24 + 25 * 10 * 20 * 8 * 8
    for found, parameters, products, activations in (
        (fc, 16_560, 16_500, 50),
        (spinal, 8_538, 8_480, 48),
    ):
        assert found == Counts(
            body[0], parameters, body[0] + parameters, products, body[1] + products, activations
        )
    share = 100 * (1 - spinal.head_multiplications / fc.head_multiplications)
    assert round(share, 3) == 48.606
    wide = counts(CNN, Component("spinal", {"width": 10, "layers": 6}))  # the EMNIST script
    assert (wide.head_multiplications, wide.head_activations) == (10_700, 60)


@pytest.mark.parametrize("outputs, fc, spinal", [(62, 164_414, 148_030), (10, 137_738, 121_354)])
def test_vgg5(outputs, fc, spinal):
    products = sum(9 * i * o * side * side for i, o, side in VGG5_CONVS)
    parameters = sum(9 * i * o + o + 2 * o for i, o, _ in VGG5_CONVS)  # 2 o: batch norm
    for head, expected in ((VGG5_FC, fc), (VGG5_SPINAL, spinal)):
        found = counts(VGG5, head, outputs)
        assert (found.body_parameters, found.head_parameters) == (parameters, expected)
        assert found.total_multiplications - found.head_multiplications == products
        assert found.head_activations == 512


@pytest.mark.parametrize(
    ("kind", "name"), [("timm", "vit_tiny_patch16_224"), ("torchvision", "vit_b_16")]
)
def test_attention_counts_in_full_on_every_device(kind, name):
    """12 blocks of 12 width^2 in Linear layers and 2 tokens x width in attention, per token."""
    width, tokens, side = (192 if kind == "timm" else 768), 4 + 1, 32
    dense = 12 * tokens * (12 * width**2 + 2 * tokens * width)
    patches = (tokens - 1) * 3 * 16 * 16 * width
    data = dataclasses.replace(dataset(), image_size=side, channels=3)
    for device in ("cpu", "meta"):
        with torch.device(device):
            model = build_model(data, Component(name, {}, kind), Component("fc", {}))
        fast = torch.backends.mha.get_fastpath_enabled()
        found = count(model, 3, side)
        assert found.total_multiplications - found.head_multiplications == dense + patches
        assert torch.backends.mha.get_fastpath_enabled() == fast


def test_shared_layers_count_once_as_parameters_and_at_each_call_as_multiplications():
    options = {"width": 20, "layers": 8, "splits": 8}
    own, shared = (
        counts(FLATTEN, Component("spinal", {**options, "shared": flag})) for flag in (False, True)
    )
    assert own.head_multiplications == shared.head_multiplications == own.total_multiplications
    assert own.head_parameters - shared.head_parameters == 6 * ((98 + 20) * 20 + 20)


def test_frozen_parameters_do_not_count():
    model = build_model(dataset(), CNN, CNN_FC)
    whole = count(model, 1, 28)
    model.freeze(True)
    frozen = count(model, 1, 28)
    assert (frozen.body_parameters, frozen.head_parameters) == (0, whole.head_parameters)
    assert frozen.total_multiplications == whole.total_multiplications


@pytest.mark.parametrize("training", [False, True])
def test_counting_changes_nothing(training):
    model = build_model(dataset(), VGG5, VGG5_SPINAL).train(training)
    model.backbone.train(False)  # parts may have another mode
    modes = [m.training for m in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    count(model, 1, 28)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
