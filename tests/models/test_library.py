"""torchvision and timm networks as backbones."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Component, DatasetConfig
from spinal_repro.errors import UserError
from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.classifier import build_model
from spinal_repro.models.counting import count
from spinal_repro.training.engine import training_loss

pytestmark = pytest.mark.filterwarnings("ignore")
BACKBONES = load_backbones()

# whole published network, its 1000-way classifier and the features it reads; the classifiers'
# sizes follow from their layers, the totals are those that the publishers state
VGG_TOP = 25088 * 4096 + 4096 + 4096 * 4097 + 4097 * 1000
PUBLISHED = {
    ("torchvision", "alexnet"): (61_100_840, 9216 * 4096 + 4096 + 4096 * 4097 + 4097 * 1000, 9216),
    ("torchvision", "vgg11"): (132_863_336, VGG_TOP, 25088),
    ("torchvision", "vgg19"): (143_667_240, VGG_TOP, 25088),
    ("torchvision", "resnet18"): (11_689_512, 513_000, 512),
    ("torchvision", "resnet152"): (60_192_808, 2_049_000, 2048),
    ("torchvision", "wide_resnet101_2"): (126_886_696, 2_049_000, 2048),
    ("timm", "seresnet50"): (28_088_024, 2_049_000, 2048),
    ("timm", "senet154"): (115_088_984, 2_049_000, 2048),
    ("torchvision", "vit_b_16"): (86_567_656, 769_000, 768),
    ("torchvision", "swin_t"): (28_288_354, 769_000, 768),
    ("timm", "inception_v4"): (42_679_816, 1_537_000, 1536),
    ("timm", "inception_resnet_v2"): (55_843_464, 1_537_000, 1536),
}


def dataset(size=32, channels=3, classes=5):
    return DatasetConfig(
        name="x", title="x", source="x", num_classes=classes, image_size=size, channels=channels,
        train_size=1, test_size=1,
    )  # fmt: skip


def component(kind, name, **options):
    return Component(name, options, kind)


SPINAL = Component("spinal", {"width": 8})


@pytest.mark.parametrize(("kind", "name"), PUBLISHED)
def test_sizes(kind, name):
    total, classifier, features = PUBLISHED[kind, name]
    with torch.device("meta"):
        body = BACKBONES.build(kind, {"name": name}, 3, 224)
    assert sum(p.numel() for p in body.parameters()) == total - classifier
    assert body.num_features == features


@pytest.mark.parametrize(
    ("kind", "name", "size"),
    [
        ("torchvision", "resnet18", 32),  # fc
        ("torchvision", "densenet121", 32),  # classifier
        ("torchvision", "convnext_tiny", 32),  # classifier: norm, flatten, Linear
        ("torchvision", "mobilenet_v3_small", 32),  # classifier: two Linear layers
        ("torchvision", "shufflenet_v2_x0_5", 32),  # fc behind a mean
        ("timm", "tf_efficientnet_lite0", 32),  # classifier
        ("timm", "resnet18", 32),  # fc
        ("timm", "convnext_atto", 32),  # head.fc
        ("timm", "vit_tiny_patch16_224", 32),  # head, made for one size
        ("timm", "deit_tiny_distilled_patch16_224", 32),  # two classifiers
    ],
)
def test_the_head_stands_where_forward_passes(kind, name, size):
    """Q3: logits come from the head alone, so its weights decide them and all get a gradient."""
    model = build_model(dataset(size), component(kind, name), SPINAL)
    model.eval()
    images = torch.rand(2, 3, size, size)
    logits = model(images)
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.head.parameters())
    with torch.no_grad():
        for p in model.head.parameters():
            p.zero_()
    assert not model(images).any()


def test_the_features_are_those_of_the_real_network():
    from torchvision import models

    with torch.random.fork_rng():
        torch.manual_seed(3)
        whole = models.resnet18().eval()
    body = BACKBONES.build("torchvision", {"name": "resnet18"}, 3, 32).eval()
    body.net.load_state_dict(whole.state_dict(), strict=False)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(whole.fc(body(images)), whole(images))


def test_vgg_keeps_nothing_of_its_classifier():
    with torch.device("meta"):
        body = BACKBONES.build("torchvision", {"name": "vgg19_bn"}, 3, 64)
    assert body.num_features == 25088
    assert not any(isinstance(m, (nn.Linear, nn.Dropout)) for m in body.modules())
    assert len(body.classifier_tensors) == 6


def test_grey_images_are_repeated():
    body = BACKBONES.build("torchvision", {"name": "resnet18"}, 1, 28).eval()
    grey = torch.rand(2, 1, 28, 28)
    assert torch.equal(body(grey), body(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("kind", "name", "near"),
    [("torchvision", "resnet19", "resnet1"), ("timm", "seresnet5", "seresnet50")],
)
def test_a_typo_names_the_nearest(kind, name, near):
    with pytest.raises(UserError, match=f"did you mean '{near}"):
        BACKBONES.build(kind, {"name": name}, 3, 32)


@pytest.mark.parametrize(
    ("options", "channels", "size", "message"),
    [
        ({"name": "alexnet"}, 3, 28, "28 px"),
        ({"name": "inception_v3"}, 3, 128, "model.aux=false"),
        ({"name": "squeezenet1_1"}, 3, 64, "no Linear"),
        ({"name": "resnet18"}, 4, 32, "3 channels"),
    ],
)
def test_refusals(options, channels, size, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        BACKBONES.build("torchvision", options, channels, size)


@pytest.mark.parametrize(
    ("name", "size", "sizes"), [("googlenet", 64, [1024, 1024]), ("inception_v3", 299, [768])]
)
def test_auxiliary_outputs(name, size, sizes):
    with torch.device("meta"):
        body = BACKBONES.build("torchvision", {"name": name}, 3, size)
        assert body.aux_features == sizes
        images = torch.empty(2, 3, size, size)
        features, aux = body(images)
        assert [x.shape for x in [features, *aux]] == [(2, n) for n in [body.num_features, *sizes]]
        assert body.eval()(images).shape == (2, body.num_features)


def test_auxiliary_outputs_train_and_vanish():
    model = build_model(dataset(64), component("torchvision", "googlenet"), SPINAL)
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
    counts = count(model, 3, 64)
    assert counts.body_parameters == 6_624_904 - 1_025_000


def test_the_literal_commands():
    config = compose(["model=torchvision", "model.name=resnet18", "model.pretrained=IMAGENET1K_V1"])
    assert config.model == Component(
        "resnet18", {"aux": True, "pretrained": "IMAGENET1K_V1"}, "torchvision"
    )
    assert "torchvision.resnet18" in str(config.run_dir)
    other = compose(["model=timm", "model.name=resnet18"])
    assert other.model.arguments == {"name": "resnet18"}
    assert config.identity() != other.identity()
