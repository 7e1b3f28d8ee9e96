"""Counts against closed forms and the paper's claims; initial weights; backbones."""

import math
from functools import cache

import pytest
import torch
from torch import nn

from spinal_repro.config.schema import Component, DatasetConfig
from spinal_repro.errors import UserError
from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.classifier import Classifier, build_model
from spinal_repro.models.counting import Counts, count
from spinal_repro.models.heads import HEADS

SMALL = ("cnn", "flatten", "vgg5")  # tests/backbones/ has all the others

CNN, VGG5, FLATTEN = (Component(name, {}) for name in ("cnn", "vgg5", "flatten"))
CNN_FC = Component("fc", {"hidden": [50], "dropout": [0.0, 0.5]})
CNN_SPINAL = Component("spinal", {"width": 8, "layers": 6})
CNN_SPINAL_10 = Component("spinal", {"width": 10, "layers": 6})
VGG5_FC = Component("fc", {"hidden": [512], "dropout": [0.5, 0.5], "norm": True})
VGG5_SPINAL = Component("spinal", {"width": 128, "layers": 4, "dropout": 0.5, "norm": True})

CNN_CONV_MULTIPLICATIONS = 25 * 10 * 24 * 24 + 25 * 10 * 20 * 8 * 8
# inputs, outputs and side of the map each convolution computes (recipes.md, 2.3)
VGG5_CONVS = [(1, 64, 28), (64, 64, 28), (64, 128, 14), (128, 128, 14), (128, 256, 7)]
VGG5_CONVS += [(256, 256, 7), (256, 256, 7), (256, 256, 3), (256, 256, 3), (256, 256, 3)]


def dataset(outputs: int = 10, channels: int = 1, image_size: int = 28) -> DatasetConfig:
    return DatasetConfig(
        name="any",
        title="any",
        source="none",
        num_classes=outputs,
        image_size=image_size,
        channels=channels,
        train_size=1,
        test_size=1,
    )


def counts(model: Component, head: Component, outputs: int = 10) -> Counts:
    return count(build_model(dataset(outputs), model, head), 1, 28)


@cache
def vgg5(seed: int, head: str) -> Classifier:
    return build_model(dataset(), VGG5, VGG5_FC if head == "fc" else VGG5_SPINAL, seed)


def percent_fewer(fewer: int, than: int) -> float:
    return 100 * (1 - fewer / than)


def test_claims_about_the_small_cnn():
    """48.5 % fewer multiplications, 4 % fewer activations (recipes.md, 3.1)."""
    fc, spinal = counts(CNN, CNN_FC), counts(CNN, CNN_SPINAL)
    assert (fc.head_multiplications, spinal.head_multiplications) == (16_500, 8_480)
    assert (fc.total_multiplications, spinal.total_multiplications) == (480_500, 472_480)
    assert (fc.head_parameters, spinal.head_parameters) == (16_560, 8_538)
    assert (fc.head_activations, spinal.head_activations) == (50, 48)

    mult = percent_fewer(spinal.head_multiplications, fc.head_multiplications)
    assert round(mult, 3) == 48.606
    assert round(percent_fewer(spinal.head_parameters, fc.head_parameters), 3) == 48.442
    assert percent_fewer(spinal.head_activations, fc.head_activations) == pytest.approx(4.0)
    whole = percent_fewer(spinal.total_multiplications, fc.total_multiplications)
    assert round(whole, 2) == 1.67


def test_width_10_of_the_emnist_script():
    fc, spinal = counts(CNN, CNN_FC), counts(CNN, CNN_SPINAL_10)
    assert spinal.head_multiplications == 10_700
    assert round(percent_fewer(spinal.head_multiplications, fc.head_multiplications), 2) == 35.15
    assert spinal.head_activations == 60


def test_cnn_body_closed_forms():
    for head in (CNN_FC, CNN_SPINAL):
        c = counts(CNN, head)
        assert c.body_parameters == (25 * 10 + 10) + (25 * 10 * 20 + 20)
        assert c.total_multiplications - c.head_multiplications == CNN_CONV_MULTIPLICATIONS
        assert c.total_parameters == c.body_parameters + c.head_parameters


@pytest.mark.parametrize("outputs, fc, spinal", [(62, 164_414, 148_030), (10, 137_738, 121_354)])
def test_vgg5_head_parameters(outputs, fc, spinal):
    assert counts(VGG5, VGG5_FC, outputs).head_parameters == fc
    assert counts(VGG5, VGG5_SPINAL, outputs).head_parameters == spinal


def test_vgg5_multiplications_and_body():
    fc, spinal = counts(VGG5, VGG5_FC), counts(VGG5, VGG5_SPINAL)
    assert (fc.head_multiplications, spinal.head_multiplications) == (136_192, 119_808)
    assert fc.head_activations == spinal.head_activations == 512
    body_mult = sum(9 * i * o * side * side for i, o, side in VGG5_CONVS)
    body_parameters = sum(9 * i * o + o + 2 * o for i, o, _ in VGG5_CONVS)  # 2 o: batch norm
    for c in (fc, spinal):
        assert c.body_parameters == body_parameters
        assert c.total_multiplications - c.head_multiplications == body_mult


def test_count_without_a_backbone_is_the_head_alone():
    c = counts(FLATTEN, Component("fc", {"hidden": []}))
    assert c.body_parameters == 0
    assert c.head_multiplications == c.total_multiplications == 784 * 10
    assert c.total_parameters == 784 * 10 + 10
    assert c.head_activations == 0


def test_count_of_shared_layers_counts_calls_not_weights():
    own = {"width": 20, "layers": 8, "splits": 8}
    c, shared = (
        counts(FLATTEN, Component("spinal", {**own, "shared": flag})) for flag in (False, True)
    )
    assert c.head_multiplications == shared.head_multiplications
    assert c.head_parameters - shared.head_parameters == 6 * ((98 + 20) * 20 + 20)


def test_count_leaves_out_frozen_parameters():
    model = build_model(dataset(), CNN, CNN_FC)
    whole = count(model, 1, 28)
    model.backbone.requires_grad_(False)
    frozen = count(model, 1, 28)
    assert frozen.body_parameters == 0
    assert frozen.head_parameters == whole.head_parameters
    assert frozen.total_multiplications == whole.total_multiplications


@pytest.mark.parametrize("training", [False, True])
def test_count_leaves_modes_buffers_and_random_state_untouched(training):
    model = build_model(dataset(), VGG5, VGG5_SPINAL).train(training)
    model.backbone.train(False)  # a frozen part must stay as it is too
    modes = [m.training for m in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    count(model, 1, 28)
    assert [m.training for m in model.modules()] == modes
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(p.grad is None for p in model.parameters())


def test_same_seed_gives_both_heads_the_same_backbone():
    fc, spinal = vgg5(3, "fc").backbone.state_dict(), vgg5(3, "spinal").backbone.state_dict()
    assert fc.keys() == spinal.keys()
    assert all(torch.equal(fc[name], spinal[name]) for name in fc)


def test_weights_depend_on_the_seed_and_on_nothing_else():
    torch.manual_seed(1)
    first = build_model(dataset(), CNN, CNN_SPINAL, seed=3).state_dict()
    torch.manual_seed(2)
    again = build_model(dataset(), CNN, CNN_SPINAL, seed=3).state_dict()
    other = build_model(dataset(), CNN, CNN_SPINAL, seed=4).state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
        assert not torch.equal(tensor, other[name]), name


def test_building_leaves_the_random_state_untouched():
    before = torch.get_rng_state()
    build_model(dataset(), CNN, CNN_FC, seed=9)
    assert torch.equal(torch.get_rng_state(), before)


def test_same_seed_gives_the_same_head_on_any_backbone_with_as_many_features():
    on_cnn = build_model(dataset(), CNN, CNN_SPINAL, seed=3).head.state_dict()
    pixels = dataset(channels=5, image_size=8)  # 320 of them, as the small CNN has features
    on_pixels = build_model(pixels, FLATTEN, CNN_SPINAL, seed=3).head.state_dict()
    assert all(torch.equal(on_cnn[name], on_pixels[name]) for name in on_cnn)


def test_head_and_backbone_draw_from_different_streams():
    """A linear head on pixels must not repeat the numbers of a linear backbone layer."""
    model = build_model(dataset(), CNN, CNN_FC)
    convolution, linear = model.backbone.conv1.weight.flatten(), model.head.layers[0].weight
    uniform = [w / w.abs().max() for w in (convolution, linear.flatten()[: len(convolution)])]
    assert not torch.allclose(*uniform, atol=0.05)


@pytest.mark.parametrize("channels, image_size", [(1, 28), (3, 32), (2, 16)])
@pytest.mark.parametrize("name", SMALL)
def test_backbones_give_the_features_they_promise(name, channels, image_size):
    backbone = load_backbones().build(name, {}, channels, image_size)
    features = backbone(torch.randn(3, channels, image_size, image_size))
    assert features.shape == (3, backbone.num_features)


def test_feature_counts_of_the_paper():
    features = {
        name: load_backbones().build(name, {}, 1, 28).num_features
        for name in ("cnn", "vgg5", "flatten")
    }
    assert features == {"cnn": 320, "vgg5": 256, "flatten": 784}


def test_flatten_reads_pixels_row_by_row():
    image = torch.arange(2 * 3 * 3.0).view(1, 2, 3, 3)
    features = load_backbones().build("flatten", {}, 2, 3)(image)
    assert features.flatten().tolist() == list(range(18))


@pytest.mark.parametrize("head", [VGG5_FC, VGG5_SPINAL], ids=["fc", "spinal"])
@pytest.mark.parametrize("name", SMALL)
def test_gradient_in_every_parameter(name, head):
    torch.manual_seed(0)
    model = build_model(dataset(channels=2), Component(name, {}), head)
    logits = model(torch.randn(6, 2, 28, 28))
    assert logits.shape == (6, 10)
    nn.functional.cross_entropy(logits, torch.arange(6)).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        if parameter.ndim > 1:  # a bias before batch norm has none but rounding
            assert parameter.grad.abs().max() > 1e-8, key


@pytest.mark.parametrize("name", ["cnn", "vgg5"])
def test_smallest_images(name):
    load_backbones().build(name, {}, 1, 16)
    with pytest.raises(UserError, match=f"model '{name}': images of 15 px are too small; 16 px"):
        load_backbones().build(name, {}, 1, 15)


def test_vgg5_initial_weights():
    """Normal(0, sqrt(2 / (9 out))), within five standard errors of its mean and deviation."""
    modules = list(vgg5(0, "fc").backbone.modules())
    convs = [m for m in modules if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convs] == [(i, o) for i, o, _ in VGG5_CONVS]
    for conv in convs:
        weight, std = conv.weight.detach().double(), math.sqrt(2 / (9 * conv.out_channels))
        n = weight.numel()
        assert abs(weight.mean().item()) < 5 * std / math.sqrt(n)
        assert abs(weight.std().item() / std - 1) < 5 / math.sqrt(2 * n)
        kurtosis = ((weight / std) ** 4).mean().item()
        assert abs(kurtosis - 3) < 5 * math.sqrt(96 / n)  # uniform weights would have 1.8
        assert conv.bias.abs().max() <= 1 / math.sqrt(9 * conv.in_channels)  # PyTorch's default
        assert conv.bias.abs().max() > 0
    for norm in (m for m in modules if isinstance(m, nn.BatchNorm2d)):
        assert norm.weight.eq(1).all()
        assert norm.bias.eq(0).all()


def test_unknown_names_and_options_name_the_nearest():
    with pytest.raises(UserError, match=r"no model 'vgg6'; did you mean 'vgg5'\?"):
        build_model(dataset(), Component("vgg6", {}), CNN_FC)
    with pytest.raises(UserError, match=r"no option of head 'spinal' 'widht'; .* 'width'\?"):
        build_model(dataset(), FLATTEN, Component("spinal", {"widht": 3}))
    with pytest.raises(UserError, match="no option of model 'cnn' 'depth'"):
        build_model(dataset(), Component("cnn", {"depth": 3}), CNN_FC)


def test_an_error_in_a_component_of_ones_own_is_shown_as_it_is(monkeypatch):
    def wrong(in_features: int, num_classes: int) -> nn.Module:
        torch.zeros(3) @ torch.zeros(4)
        return nn.Identity()

    monkeypatch.setitem(HEADS._items, "wrong", wrong)
    with pytest.raises(RuntimeError) as raised:
        build_model(dataset(), FLATTEN, Component("wrong", {}))
    assert not isinstance(raised.value, UserError)
    assert any(entry.name == "wrong" for entry in raised.traceback)
