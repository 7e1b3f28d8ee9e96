"""Building a classifier: random streams, freezing, messages."""

import pytest
import torch
from torch import nn

from spinal_repro.config.schema import Component, DatasetConfig
from spinal_repro.errors import UserError
from spinal_repro.models.backbones import BACKBONES
from spinal_repro.models.classifier import build_blank, build_model

CNN, FLATTEN = Component("cnn", {}), Component("flatten", {})
FC = Component("fc", {"hidden": [50], "dropout": [0.0, 0.5]})
SPINAL = Component("spinal", {"width": 8, "layers": 6})


def dataset(channels: int = 1, image_size: int = 28) -> DatasetConfig:
    return DatasetConfig(
        name="x", title="x", source="x", num_classes=10, image_size=image_size,
        channels=channels, train_size=1, test_size=1,
    )  # fmt: skip


def equal(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_weights_depend_only_on_the_seed():
    first = build_model(dataset(), CNN, SPINAL, seed=3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = build_model(dataset(), CNN, SPINAL, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(first, again)
    other = build_model(dataset(), CNN, SPINAL, seed=4).state_dict()
    assert not any(torch.equal(t, other[name]) for name, t in first.state_dict().items())


def test_backbone_and_head_draw_from_separate_streams():
    fc, spinal = (build_model(dataset(), CNN, head, seed=3) for head in (FC, SPINAL))
    assert equal(fc.backbone, spinal.backbone)
    pixels = build_model(dataset(channels=5, image_size=8), FLATTEN, SPINAL, seed=3)
    assert equal(spinal.head, pixels.head)  # also with 320 features
    convolution, linear = fc.backbone.conv1.weight.flatten(), fc.head.layers[0].weight.flatten()
    scaled = [w / w.abs().max() for w in (convolution, linear[: len(convolution)])]
    assert not torch.allclose(*scaled, atol=0.05)


class NeedsValues(nn.Module):
    """Computes with values while it is built, which the meta device cannot."""

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        self.num_features = len(torch.ones(image_size).nonzero())


def test_blank_models_are_on_meta_where_that_is_possible(monkeypatch):
    monkeypatch.setitem(BACKBONES._items, "needs_values", NeedsValues)
    for body, device in ((CNN, "meta"), (Component("needs_values", {}), "cpu")):
        model = build_blank(dataset(), body, SPINAL, 28)
        assert {p.device.type for p in model.parameters()} == {device}


def test_a_frozen_backbone_does_not_change():
    model = build_model(dataset(3, 32), Component("cifar_cnn", {"freeze": "backbone"}), SPINAL)
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    model.train()
    assert model.head.training and not any(m.training for m in model.backbone.modules())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(torch.rand(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(t, before[n]) for n, t in model.backbone.state_dict().items())
    assert all(p.grad is not None for p in model.head.parameters())


@pytest.mark.parametrize(
    ("model", "head", "near"),
    [
        (Component("vgg6", {}), FC, "vgg5"),
        (FLATTEN, Component("spinal", {"widht": 3}), "width"),
        (Component("cnn", {"freeze": "backbones"}), FC, "backbone"),
    ],
)
def test_unknown_names_and_options_name_the_nearest(model, head, near):
    with pytest.raises(UserError, match=near):
        build_model(dataset(), model, head)
