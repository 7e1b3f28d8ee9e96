"""Every backbone and every file of configs/model, with both heads."""

import pytest
import torch
from helpers.composing import composed

from spinal_repro.config.compose import choices
from spinal_repro.data.augment import build_augmentations
from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.backbones.library import LibraryBackbone
from spinal_repro.models.classifier import build_model
from spinal_repro.training.engine import training_loss
from spinal_repro.training.optim import LR_RULES

pytestmark = pytest.mark.filterwarnings("ignore")
MODELS = choices("model")


def is_library(model):
    return composed(f"model={model}").model.kind is not None


# networks written here that are too large to compute
LARGE = ("vgg_a_lrn", "vgg_c")
OWN = [model for model in MODELS if not is_library(model)]
# smallest images that show the model as it is; 28 px, grey, where nothing is said
SIZES = {
    "alexnet": 64, "googlenet": 64, "inception_v3": 299, "inception_v4": 96,
    "inception_resnet_v2": 96,
}  # fmt: skip
GREY = ("arch2", "cnn", "flatten", "lenet5", "vgg5")
# of these only shapes are run: their blocks are those of smaller networks
DEEP = ("inception_resnet_v2", "inception_v4", "resnet152", "senet154", "wide_resnet101_2")


def overrides(model, head):
    size = SIZES.get(model, 28 if model in GREY else 32)
    channels = 1 if model in GREY else 3
    return [
        "dataset=mnist", f"model={model}", f"head={head}", f"dataset.image_size={size}",
        f"dataset.channels={channels}",
    ]  # fmt: skip


def known(model, head):
    """The composition, with its recipe's rule and augmentations known to be real."""
    config = composed(*overrides(model, head))
    rule = dict(config.recipe.lr_rule)
    LR_RULES.build(rule.pop("name"), rule)
    build_augmentations(config.recipe.augment)
    return config


def test_every_registered_backbone_has_a_file():
    kinds = {"torchvision", "timm"}  # each with files of its own
    assert set(load_backbones().names()) - kinds == set(OWN) - kinds


@pytest.mark.parametrize("head", ["fc", "spinal"])
@pytest.mark.parametrize("model", [m for m in OWN if m not in LARGE])
def test_trains(model, head):
    """Every parameter gets a gradient, evaluation is deterministic, weights make a round trip."""
    config = known(model, head)
    classifier = build_model(config.dataset, config.model, config.head)
    size = config.dataset.image_size
    images = torch.rand(3, config.dataset.channels, size, size)
    labels = torch.tensor([0, 1, 2])
    _, loss = training_loss(classifier(images), labels, 0.0)
    loss.backward()
    assert [n for n, p in classifier.named_parameters() if p.grad is None] == []

    classifier.eval()
    with torch.no_grad():
        logits = classifier(images)
        assert logits.shape == (3, config.dataset.outputs)
        assert torch.equal(classifier(images), logits)
        saved = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
        for p in classifier.parameters():
            p.add_(1)
        assert not torch.equal(classifier(images), logits)
        classifier.load_state_dict(saved)
        assert torch.equal(classifier(images), logits)


@pytest.mark.parametrize("model", [m for m in MODELS if m not in OWN or m in LARGE])
def test_shapes_fit_both_heads(model):
    configs = [known(model, head) for head in ("fc", "spinal")]
    dataset = configs[0].dataset
    with torch.device("meta"):
        classifier = build_model(dataset, configs[0].model, configs[0].head)
        top = build_head(configs[1], classifier.backbone.num_features)
        images = torch.empty(2, dataset.channels, dataset.image_size, dataset.image_size)
        if model not in DEEP:
            _, loss = training_loss(classifier(images), torch.zeros(2, dtype=torch.long), 0.0)
            loss.backward()
            assert [n for n, p in classifier.named_parameters() if p.grad is None] == []
        classifier.eval()
        assert top(classifier.backbone(images)).shape == (2, dataset.outputs)


def build_head(config, num_features):
    from spinal_repro.models.heads import HEADS

    return HEADS.build(config.head.name, config.head.options, num_features, config.dataset.outputs)


def test_the_cells_choose_the_pooling_of_a_thin_resnet():
    for cell in ("cifar10/resnet18_thin", "cifar100/resnet34_thin"):
        fc, spinal = (composed(f"paper={cell}_{head}") for head in ("fc", "spinal"))
        assert (fc.model.options["pool"], spinal.model.options["pool"]) == (4, 2)
        assert spinal.head.options["splits"] == spinal.head.options["layers"] == 4


@pytest.mark.parametrize(
    ("cell", "width"),
    [
        ("cifar10/cnn_spinal", 128), ("cifar100/cnn_spinal", 256),
        ("cifar10/resnet18_thin_spinal", 256), ("cifar100/resnet34_thin_spinal", 512),
        ("cifar10/vgg19_bn_spinal", 512), ("cifar100/vgg19_bn_spinal", 512),
    ],
)  # fmt: skip
def test_published_widths_and_classifiers(cell, width):
    config = composed(f"paper={cell}")
    assert config.head.options["width"] == width
    with torch.device("meta"):
        classifier = build_model(config.dataset, config.model, config.head)
    inputs = classifier.head.output[-1].in_features
    assert inputs == 4 * width


def test_seed_gives_both_heads_the_same_backbone():
    config = composed("model=torchvision", "dataset.image_size=32")
    fc, spinal = (
        build_model(config.dataset, config.model, composed(f"head={head}").head, seed=4)
        for head in ("fc", "spinal")
    )
    assert isinstance(fc.backbone, LibraryBackbone)
    for a, b in zip(fc.backbone.parameters(), spinal.backbone.parameters(), strict=True):
        assert torch.equal(a, b)
