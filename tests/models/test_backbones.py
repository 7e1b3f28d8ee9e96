"""Backbones: sizes against closed forms, layouts against the recipes, every model trains."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from helpers.composing import changed, composed
from helpers.on_device import CASES
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spinal_repro.config.compose import choices
from spinal_repro.errors import UserError
from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.backbones.history import CONNECTIONS
from spinal_repro.models.classifier import build_model
from spinal_repro.models.heads import HEADS
from spinal_repro.training.loss import training_loss

pytestmark = pytest.mark.filterwarnings("ignore")
BACKBONES = load_backbones()
OWN = [name for name in BACKBONES.names() if name not in ("torchvision", "timm")]
SHIPPED = choices("model")
LARGE = ("vgg_a_lrn", "vgg_c")  # written here, but too large to compute
GREY = ("arch2", "cnn", "flatten", "lenet5", "vgg5")
# smallest images that show a model of a library; 32 px for the others
SIZES = {
    "alexnet": 64, "googlenet": 64, "inception_v3": 299, "inception_v4": 96,
    "inception_resnet_v2": 96,
}  # fmt: skip


def build(name, channels=3, image_size=32, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BACKBONES.build(name, options, channels, image_size)


def num_parameters(module):
    return sum(p.numel() for p in module.parameters())


def conv(width_in, width, kernel=3, bias=True):
    return width_in * width * kernel**2 + (width if bias else 0)


def chain(widths, norm=0):
    return sum(conv(a, b) + norm * b for a, b in pairwise(widths))


def dense(width):
    return 2 * width + sum(conv(w, 32) for w in (width, 32, 64, 96, 128))


def thin(blocks, widths=(32, 64, 128, 256)):
    width_in = widths[0]
    total = conv(3, width_in, bias=False) + 2 * width_in
    for width, count in zip(widths, blocks, strict=True):
        for position in range(count):
            total += conv(width_in, width, bias=False) + conv(width, width, bias=False) + 4 * width
            if position == 0 and width != width_in:
                total += conv(width_in, width, bias=False) + 2 * width
            width_in = width
    return total


VGG = {
    "vgg11_bn": [3, 64, 128, 256, 256, 512, 512, 512, 512],
    "vgg13_bn": [3, 64, 64, 128, 128, 256, 256, 512, 512, 512, 512],
    "vgg16_bn": [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512],
    "vgg19_bn": [3, 64, 64, 128, 128, *[256] * 4, *[512] * 8],
}
CLOSED = {
    "flatten": (0, 3072),
    "cnn": (conv(3, 10, 5) + conv(10, 20, 5), 500),
    "arch2": (conv(3, 10, 5) + conv(10, 20, 5), 3072 + 1960 + 500),
    "vgg5": (chain([3, 64, 64, 128, 128, *[256] * 6], norm=2), 1024),
    "cifar_cnn": (chain([3, 32, 64, 128, 128, 256, 256]) + 2 * (32 + 128 + 256), 4096),
    **{name: (chain(w, norm=2), 512) for name, w in VGG.items()},
    "resnet18_thin": (thin((2, 2, 2, 2)), 256),
    "resnet34_thin": (thin((3, 4, 6, 3)), 256),
    "densenet": (conv(3, 64, 7, False) + dense(64) + 2 * dense(128) + 162 * 320 + 2 * 64, 1024),
    "tutorial_cnn": (conv(3, 6, 5) + conv(6, 16, 5), 400),
    "tutorial_resnet": (thin((2, 2, 2), (16, 32, 64)), 64),
    # C1, S2, C3, S4, C5 of the 1998 paper, with two more input channels
    "lenet5": (156 + 2 * 150 + 12 + 1516 + 32 + 48120, 120),
    # published with 1000-way classifiers; 10,016 are the biases of BN-Inception's convolutions
    "bn_inception": (11_295_240 - 1025 * 1000 - 10_016, 1024),
    "vgg_a_lrn": (132_863_336 - 123_642_856, 25088),
    "vgg_c": (133_047_848 + 256 * 257 + 2 * 512 * 513 - 123_642_856, 25088),
}


@pytest.mark.parametrize("name", OWN)
def test_sizes(name):
    with torch.device("meta"):
        model = BACKBONES.build(name, {}, 3, 32)
    assert (num_parameters(model), model.num_features) == CLOSED[name]


def test_features_on_mnist():
    sizes = {name: build(name, 1, 28).num_features for name in GREY}
    assert sizes == {"cnn": 320, "vgg5": 256, "flatten": 784, "arch2": 2544, "lenet5": 120}


@pytest.mark.parametrize(
    ("name", "least"),
    [("cnn", 16), ("vgg5", 16), ("cifar_cnn", 8), ("vgg11_bn", 32), ("resnet18_thin", 25),
     ("densenet", 8), ("tutorial_cnn", 16), ("lenet5", 28), ("bn_inception", 32), ("vgg_c", 32)],
)  # fmt: skip
def test_smallest_images(name, least):
    with torch.device("meta"):
        body = BACKBONES.build(name, {}, 3, least).eval()
        assert body(torch.empty(2, 3, least, least)).shape == (2, body.num_features)
        with pytest.raises(UserError, match=f"{least - 1} px"):
            BACKBONES.build(name, {}, 3, least - 1)


def test_flatten_reads_pixels_row_by_row():
    image = torch.arange(2 * 3 * 3.0).view(1, 2, 3, 3)
    assert build("flatten", 2, 3)(image).flatten().tolist() == list(range(18))


def test_cnn_computes_what_the_script_computes():
    """The script drops maps before the pooling; features and gradients have the same bits."""
    net, images = build("cnn", 1, 28).train(), torch.rand(8, 1, 28, 28)

    def script(x):
        x = F.relu(F.max_pool2d(net.conv1(x), 2))
        return F.relu(F.max_pool2d(net.dropout(net.conv2(x)), 2)).flatten(1)

    found = []
    for forward in (net, script):
        torch.manual_seed(0)
        features = forward(images)
        gradients = torch.autograd.grad(features.square().sum(), list(net.parameters()))
        found.append([features, *gradients])
    assert all(map(torch.equal, *found))
    assert 0 < (found[0][0].view(8, 20, 16) == 0).all(2).sum() < 160  # maps were dropped


def test_arch2_concatenates_its_taps():
    model, images = build("arch2", 1, 28).eval(), torch.rand(2, 1, 28, 28)
    pixels, _, last = model(images).split((784, 1440, 320), dim=1)
    assert torch.equal(pixels, images.flatten(1))
    assert torch.equal(last, build("cnn", 1, 28).eval()(images))


def test_vgg5_initial_weights():
    """Normal(0, sqrt(2 / (9 out))), within five standard errors of its moments."""
    for module in build("vgg5", 1, 28).modules():
        if isinstance(module, nn.Conv2d):
            weight, std = module.weight.detach().double(), math.sqrt(2 / (9 * module.out_channels))
            n = weight.numel()
            assert abs(weight.mean().item()) < 5 * std / math.sqrt(n)
            assert abs(weight.std().item() / std - 1) < 5 / math.sqrt(2 * n)
            assert 0 < module.bias.abs().max() <= 1 / math.sqrt(9 * module.in_channels)


def test_thin_resnet_gives_the_cells_in_order():
    whole, cells = (build("resnet18_thin", pool=pool).eval() for pool in (4, 2))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        maps = cells.stages(cells.stem(images))
        quadrants = [maps[:, :, r : r + 2, c : c + 2].amax((2, 3)) for r in (0, 2) for c in (0, 2)]
        assert torch.equal(cells(images), torch.cat(quadrants, dim=1))
        assert torch.equal(whole(images), maps.amax((2, 3)))
        assert maps.min() < 0  # no activation after the last addition (Q13)


def test_densenet_is_that_of_the_scripts():
    """Order and widths of recipes 4.5, written out with the weights of the network."""
    net = build("densenet").eval()
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    blocks = ((64, 128), (128, 128), (128, 64))
    sizes = [(3, 64, 7, False)]
    for width, out in blocks:
        sizes += [(w, 32, 3, True) for w in (width, 32, 64, 96, 128)] + [(160, out, 1, False)]
    assert sizes == [
        (c.in_channels, c.out_channels, *set(c.kernel_size), c.bias is not None) for c in convs
    ]
    for tensor in [t for m in norms for t in (m.running_mean, m.running_var, m.weight, m.bias)]:
        nn.init.uniform_(tensor, 0.5, 1.5)  # so that their places matter
    images, layers, norm = torch.rand(2, 3, 32, 32), iter(convs), iter(norms)
    with torch.no_grad():
        x = F.relu(next(layers)(images))
        for _ in blocks:
            outputs = [F.relu(next(layers)(next(norm)(x)))]
            while len(outputs) < 5:
                outputs.append(F.relu(next(layers)(torch.cat(outputs, 1))))
            x = F.avg_pool2d(next(norm)(F.relu(next(layers)(torch.cat(outputs, 1)))), 2)
        torch.testing.assert_close(net(images), next(norm)(x).flatten(1))


def test_tutorial_resnet_averages_after_the_last_relu():
    whole, cells = (build("tutorial_resnet", pool=pool).eval() for pool in (8, 2))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        maps = cells.layers[:-1](images)
        assert maps.shape == (2, 64, 8, 8) and maps.min() == 0
        torch.testing.assert_close(whole(images), maps.mean((2, 3)))
        by_cell = maps.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
        torch.testing.assert_close(cells(images), by_cell.flatten(1))


@pytest.mark.parametrize("head", ["fc", "spinal", "linear"])
@pytest.mark.parametrize("model", ["resnet18_thin", "resnet34_thin"])
def test_linear_biases_of_thin_heads_start_at_zero(model, head):
    """Recipes 2.6; every other weight is as without the option, which older records leave out."""
    config = composed("dataset=cifar10", f"model={model}", f"head={head}")
    plain = changed(config, {"model.zero_head_bias": False})
    assert "zero_head_bias" not in plain.model.options
    ours, before = (
        build_model(c.dataset, c.model, c.head, seed=3).state_dict() for c in (config, plain)
    )
    biases = {n for n in ours if n.startswith("head.") and n.endswith(".bias")}
    assert biases and all(before[n].any() and not ours[n].any() for n in biases)
    assert all(torch.equal(ours[n], tensor) for n, tensor in before.items() if n not in biases)
    with pytest.raises(UserError, match="true or false"):
        build_model(
            config.dataset, changed(config, {"model.zero_head_bias": "no"}).model, config.head
        )


def test_lenet_connections():
    """C3 reads the maps of the 1998 paper's table: rows are maps of S2, columns maps of C3."""
    table = [
        "X...XXX..XXXX.XX", "XX...XXX..XXXX.X", "XXX...XXX..X.XXX",
        ".XXX..XXXX..X.XX", "..XXX..XXXX.XX.X", "...XXX..XXXX.XXX",
    ]  # fmt: skip
    for row, marks in enumerate(table):
        assert "".join("X" if row in maps else "." for maps in CONNECTIONS) == marks
    conv3 = build("lenet5", 1, 28).layers[4]
    x = torch.randn(1, 6, 5, 5, requires_grad=True)
    for out, maps in enumerate(CONNECTIONS):
        (gradient,) = torch.autograd.grad(conv3(x)[0, out].sum(), x)
        assert gradient[0].abs().sum((1, 2)).nonzero().flatten().tolist() == sorted(maps)


def shipped(model, head="fc"):
    size = SIZES.get(model, 28 if model in GREY else 32)
    channels = 1 if model in GREY else 3
    config = composed(
        "dataset=mnist", f"model={model}", f"head={head}", f"dataset.image_size={size}",
        f"dataset.channels={channels}",
    )  # fmt: skip
    return config, torch.rand(3, channels, size, size)


@pytest.mark.parametrize("model", [name for name in OWN if name not in LARGE])
def test_own_models_train_and_evaluate_deterministically(model):
    config, images = shipped(model, "spinal")
    classifier = build_model(config.dataset, config.model, config.head)
    _, loss = training_loss(classifier(images), torch.arange(3), 0.0)
    loss.backward()
    assert [n for n, p in classifier.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        logits = classifier.eval()(images)
        assert logits.shape == (3, config.dataset.outputs)
        assert torch.equal(classifier(images), logits)


@pytest.mark.parametrize("model", [name for name in SHIPPED if name not in OWN or name in LARGE])
def test_shipped_models_fit_both_heads(model):
    (config, images), (spinal, _) = (shipped(model, head) for head in ("fc", "spinal"))
    with torch.device("meta"):
        classifier = build_model(config.dataset, config.model, config.head)
        features = classifier.backbone.num_features
        top = HEADS.build("spinal", spinal.head.options, features, config.dataset.outputs)
        outputs = top(classifier.eval().backbone(images.to("meta")))
    assert outputs.shape == (3, config.dataset.outputs)


class Flips(TorchDispatchMode):
    """Lists operations on maps of two memory layouts, which copy them or run a slow kernel."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        maps = [t for t in tree_leaves((args, kwargs, result)) if getattr(t, "ndim", 0) == 4]
        last = torch.channels_last
        layouts = {(t.is_contiguous(), t.is_contiguous(memory_format=last)) for t in maps}
        if len(layouts - {(True, True)}) > 1:  # one channel or one pixel has both layouts
            self.found.append(func._opname)
        return result


FLATTENED = ["clone", "threshold_backward"]  # features are in the order of the channels


@pytest.mark.parametrize(
    ("case", "flips"),
    [("cnn", FLATTENED), ("vgg5", []), ("vgg11_bn", []), ("resnet18_thin", []),
     ("torchvision", [])],
)  # fmt: skip
def test_training_keeps_channels_last(case, flips):
    config, last = composed(*CASES[case]), torch.channels_last
    model = build_model(config.dataset, config.model, config.head).to(memory_format=last)
    images = torch.rand(4, config.dataset.channels, config.input_size, config.input_size)

    def flips_of(batch):
        with Flips() as watched:
            training_loss(model(batch), torch.arange(4), 0.0)[1].backward()
        return watched.found

    assert flips_of(images.to(memory_format=last)) == flips
    if images.shape[1] == 3:
        assert flips_of(images)[0] == "convolution", "flips are seen"
