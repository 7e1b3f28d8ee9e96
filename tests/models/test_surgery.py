"""A Spinal head in place of the classifier of any network."""

import pytest
import torch
import torchvision.models as tv
from torch import nn

from spinal_repro import SpinalHead, to_spinal
from spinal_repro.models.surgery import find_classifier

OPTIONS = {"width": 6, "layers": 4}


def build(library, name, **arguments):
    """A network without memory: where its classifier is does not depend on its weights."""
    timm = pytest.importorskip("timm")  # importing it on "meta" fails with PyTorch 2.7
    with torch.device("meta"):
        if library == "timm":
            return timm.create_model(name, **arguments)
        return getattr(tv, name)(weights=None, **arguments)


def heads(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, SpinalHead)}


@pytest.mark.parametrize(
    ("library", "name", "place", "features"),
    [
        ("torchvision", "resnet18", "fc", 512),
        ("torchvision", "vgg19_bn", "classifier", 25088),  # all three layers (recipes 2.8)
        ("torchvision", "alexnet", "classifier.1", 9216),  # behind its first dropout
        ("torchvision", "mobilenet_v3_small", "classifier", 576),
        ("torchvision", "convnext_tiny", "classifier.2", 768),  # behind norm and flatten
        ("torchvision", "vit_b_16", "heads", 768),
        ("timm", "vit_tiny_patch16_224", "head", 192),
        ("timm", "convnext_atto", "head.fc", 320),
    ],
)
def test_the_head_replaces_the_classifier(library, name, place, features):
    model = build(library, name)
    assert to_spinal(model, 7, **OPTIONS) is model
    ((found, head),) = heads(model).items()
    assert (found, head.in_features, len(head.layers)) == (place, features, 4)
    side = model.pretrained_cfg["input_size"][1] if library == "timm" else 224
    images = torch.zeros(2, 3, side, side, device="meta")
    assert model.eval()(images).shape == (2, 7)
    assert library != "timm" or model.num_classes == 7
    again = find_classifier(model, images)  # the new output layer is the one that counts
    assert again.in_features == 24


def test_only_the_classifier_changes():
    torch.manual_seed(0)
    model = tv.resnet18(weights=None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model.bn1.eval()  # a mixture of modes survives the search
    to_spinal(model, 3, **OPTIONS)
    after = model.state_dict()
    assert all(torch.equal(after[n], v) for n, v in before.items() if not n.startswith("fc."))
    assert not model.bn1.training
    assert model.layer1[0].bn1.training
    assert model.fc.training
    assert all(not module._forward_hooks for module in model.modules())
    x = torch.randn(4, 3, 32, 32)
    features = nn.Sequential(*list(model.children())[:-1], nn.Flatten())
    model.eval()
    torch.testing.assert_close(model(x), model.fc(features(x)))
    model.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.fc.parameters())
    assert all(p.grad is not None for p in model.parameters())


def test_a_module_that_forward_does_not_use_is_never_replaced():
    """Q3: VGG never touches ``.fc``."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with torch.device("meta"):  # its own classifier, of 120 million weights
        model = tv.VGG(features, num_classes=10, init_weights=False)
    model.classifier = nn.Sequential(nn.Linear(4 * 7 * 7, 9), nn.ReLU(True), nn.Linear(9, 10))
    unused = model.fc = nn.Linear(196, 1000)
    model.head = nn.Linear(196, 1000)
    to_spinal(model, 5, **OPTIONS)
    assert model.fc is unused
    assert list(heads(model)) == ["classifier"]
    logits = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.classifier.parameters())


def test_other_layers_of_a_sequential_stay():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x):
            return x + self.linear(x)

    model = nn.Sequential(nn.Linear(12, 8), Block(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    kept = list(model)[:2]
    to_spinal(model, 3, example=torch.zeros(1, 12), **OPTIONS)
    assert [m for m in model if not isinstance(m, SpinalHead)] == kept
    assert isinstance(model[2], SpinalHead)
    assert model(torch.randn(2, 12)).shape == (2, 3)


def test_the_head_takes_options_type_and_mode():
    model = tv.resnet18(weights=None).double().eval()
    to_spinal(model, 3, width=6, layers=5, splits=4, dropout=0.5, norm=True, shared=True)
    assert model.fc.slice_size == 128 and len(model.fc.layers) == 2 and not model.fc.training
    assert {p.dtype for p in model.fc.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("make", "example", "words"),
    [
        (lambda: build("torchvision", "squeezenet1_0"), None, "no Linear"),
        (lambda: tv.googlenet(weights=None, init_weights=False), None, "aux_logits=False"),
        (lambda: build("timm", "deit_tiny_distilled_patch16_224"), None, "head_dist"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(5, 2)), None, "give"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), None, "example="),
        (lambda: nn.Linear(5, 2), (1, 5), "single Linear"),
        (lambda: nn.Sequential(nn.Linear(5, 2)), (1, 3, 5), r"\[N, D\]"),
        (lambda: nn.Sequential(nn.Linear(5, 2), nn.Softmax(-1)), (1, 5), "Linear"),
    ],
)  # fmt: skip
def test_networks_that_do_not_end_in_a_classifier_are_refused(make, example, words):
    model = make()
    before = list(model.state_dict())
    with pytest.raises(ValueError, match=words):
        to_spinal(model, 3, example=None if example is None else torch.zeros(example))
    assert list(model.state_dict()) == before
    assert all(not module._forward_hooks for module in model.modules())


def test_an_error_of_the_head_leaves_the_model_unchanged():
    model = tv.resnet18(weights=None)
    with pytest.raises(ValueError):
        to_spinal(model, 3, layers=2, splits=4)
    assert isinstance(model.fc, nn.Linear)
