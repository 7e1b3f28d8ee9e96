"""torchvision and timm networks as backbones."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spinal_repro.config.schema import Component, DatasetConfig
from spinal_repro.errors import UserError
from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.classifier import build_model
from spinal_repro.models.counting import count
from spinal_repro.training.loss import training_loss

pytestmark = pytest.mark.filterwarnings("ignore")
BACKBONES = load_backbones()
SPINAL = Component("spinal", {"width": 8})
# parameters of the whole published network, of its 1000-way classifier, and features; the
# classifiers' sizes follow from their layers, the totals are those of the publishers
VGG_TOP = 25088 * 4096 + 4096 + 4096 * 4097 + 4097 * 1000
PUBLISHED = {
    ("torchvision", "alexnet"): (61_100_840, 9216 * 4096 + 4096 + 4096 * 4097 + 4097 * 1000, 9216),
    ("torchvision", "vgg19"): (143_667_240, VGG_TOP, 25088),
    ("torchvision", "resnet18"): (11_689_512, 513_000, 512),
    ("timm", "seresnet50"): (28_088_024, 2_049_000, 2048),
    ("torchvision", "vit_b_16"): (86_567_656, 769_000, 768),
    ("timm", "inception_v4"): (42_679_816, 1_537_000, 1536),
}


def build(kind, name, size, channels=3):
    dataset = DatasetConfig(
        name="x", title="x", source="x", num_classes=5, image_size=size, channels=channels,
        train_size=1, test_size=1,
    )  # fmt: skip
    return build_model(dataset, Component(name, {}, kind), SPINAL)


@pytest.mark.parametrize(("kind", "name"), PUBLISHED)
def test_sizes(kind, name):
    total, classifier, features = PUBLISHED[kind, name]
    with torch.device("meta"):
        body = BACKBONES.build(kind, {"name": name}, 3, 224)
    assert sum(p.numel() for p in body.parameters()) == total - classifier
    assert body.num_features == features
    if name in ("alexnet", "vgg19"):  # the whole classifier is removed, dropout included
        assert not any(isinstance(m, nn.Dropout) for m in body.modules())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("torchvision", "densenet121"),  # classifier
        ("torchvision", "convnext_tiny"),  # classifier: norm, flatten, Linear
        ("torchvision", "mobilenet_v3_small"),  # classifier: two Linear layers
        ("torchvision", "shufflenet_v2_x0_5"),  # fc behind a mean
        ("timm", "tf_efficientnet_lite0"),  # classifier
        ("timm", "convnext_atto"),  # head.fc
        ("timm", "vit_tiny_patch16_224"),  # head, built for one size
        ("timm", "deit_tiny_distilled_patch16_224"),  # two classifiers
    ],
)
def test_logits_come_only_from_the_head(kind, name):
    """Q3: the head's weights decide the logits, and all of them get a gradient."""
    model = build(kind, name, 32).eval()
    images = torch.rand(2, 3, 32, 32)
    logits = model(images)
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.head.parameters())
    with torch.no_grad():
        for p in model.head.parameters():
            p.zero_()
    assert not model(images).any()


def test_features_are_those_of_the_network():
    from torchvision import models

    whole = models.resnet18().eval()
    body = BACKBONES.build("torchvision", {"name": "resnet18"}, 3, 32).eval()
    body.net.load_state_dict(whole.state_dict(), strict=False)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(whole.fc(body(images)), whole(images))
    grey = images[:, :1]
    assert torch.equal(body(grey), body(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("kind", "name", "channels", "size", "message"),
    [
        ("torchvision", "resnet19", 3, 32, "'resnet1"),
        ("timm", "seresnet5", 3, 32, "'seresnet50'"),
        ("torchvision", "alexnet", 3, 28, "28 px"),
        ("torchvision", "inception_v3", 3, 128, "model.aux=false"),
        ("torchvision", "squeezenet1_1", 3, 64, "no Linear"),
        ("torchvision", "resnet18", 4, 32, "3 channels"),
    ],
)
def test_refusals(kind, name, channels, size, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        BACKBONES.build(kind, {"name": name}, channels, size)


def test_auxiliary_outputs_train_and_vanish():
    model = build("torchvision", "googlenet", 64)
    images, labels = torch.rand(2, 3, 64, 64), torch.tensor([0, 4])
    output = model(images)
    logits, loss = training_loss(output, labels, 0.1)
    parts = [F.cross_entropy(x, labels, label_smoothing=0.1) for x in (output[0], *output[1])]
    assert torch.allclose(loss, parts[0] + 0.3 * parts[1] + 0.3 * parts[2])
    assert logits is output[0]
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert model.eval()(images).shape == (2, 5)
    # published without auxiliary outputs: 6,624,904 with its 1000-way classifier
    assert count(model, 3, 64)["body_parameters"] == 6_624_904 - 1_025_000
