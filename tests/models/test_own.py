"""Backbones written here: sizes against closed forms, layouts against the recipes."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from spinal_repro.errors import UserError
from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.backbones.history import CONNECTIONS

BACKBONES = load_backbones()


def build(name, channels=3, image_size=32, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BACKBONES.build(name, options, channels, image_size)


def num_parameters(module):
    return sum(p.numel() for p in module.parameters())


def conv(width_in, width, kernel=3, bias=True):
    return width_in * width * kernel**2 + (width if bias else 0)


def chain(widths, kernel=3, bias=True, norm=0):
    return sum(conv(a, b, kernel, bias) + norm * b for a, b in pairwise(widths))


def thin(blocks):
    total = conv(3, 32, bias=False) + 2 * 32
    width_in = 32
    for width, count in zip((32, 64, 128, 256), blocks, strict=True):
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
    "cifar_cnn": (chain([3, 32, 64, 128, 128, 256, 256]) + 2 * (32 + 128 + 256), 4096),
    **{name: (chain(w, norm=2), 512) for name, w in VGG.items()},
    "resnet18_thin": (thin((2, 2, 2, 2)), 256),
    "resnet34_thin": (thin((3, 4, 6, 3)), 256),
    # published with the 10-way classifier: DenseNet-BC 0.8M (769,162), others 1000-way
    "densenet": (769_162 - 343 * 10, 342),
    # 11,295,240 in the implementation in common use, which has a bias in every convolution:
    # 64 + 64 + 192 in the stem, then those of the ten modules
    "bn_inception": (11_295_240 - 1025 * 1000 - 10_016, 1024),
    "vgg_a_lrn": (132_863_336 - 123_642_856, 25088),
    "vgg_c": (133_047_848 + 256 * 257 + 2 * 512 * 513 - 123_642_856, 25088),
}


@pytest.mark.parametrize("name", CLOSED)
def test_sizes(name):
    with torch.device("meta"):
        model = BACKBONES.build(name, {}, 3, 224 if name in ("bn_inception", "vgg_c") else 32)
        assert (num_parameters(model), model.num_features) == CLOSED[name]


def test_lenet_sizes():
    layers = build("lenet5", 1, 28).layers
    counts = [n for n in (num_parameters(layer) for layer in layers) if n]
    assert counts == [156, 12, 1516, 32, 48120]  # C1, S2, C3, S4, C5 of the 1998 paper
    assert build("lenet5", 1, 32).num_features == build("lenet5", 1, 28).num_features == 120


def test_lenet_connections():
    assert [len(maps) for maps in CONNECTIONS] == [3] * 6 + [4] * 9 + [6]
    table = [  # rows of the table, one a map of S2, in columns of C3
        "X...XXX..XXXX.XX", "XX...XXX..XXXX.X", "XXX...XXX..X.XXX",
        ".XXX..XXXX..X.XX", "..XXX..XXXX.XX.X", "...XXX..XXXX.XXX",
    ]  # fmt: skip
    for row, marks in enumerate(table):
        assert "".join("X" if row in maps else "." for maps in CONNECTIONS) == marks


def test_lenet_c3_reads_its_connections_alone():
    conv3 = build("lenet5", 1, 28).layers[4]
    x = torch.randn(1, 6, 5, 5, requires_grad=True)
    for out, maps in enumerate(CONNECTIONS):
        (gradient,) = torch.autograd.grad(conv3(x)[0, out].sum(), x)
        assert tuple(gradient[0].abs().sum((1, 2)).nonzero().flatten().tolist()) == tuple(
            sorted(maps)
        )


def test_thin_resnet_gives_the_cells_in_order():
    whole, cells = (build("resnet18_thin", pool=pool).eval() for pool in (4, 2))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        maps = cells.stages(cells.stem(images))
        assert maps.shape == (2, 256, 4, 4)
        quadrants = [maps[:, :, r : r + 2, c : c + 2].amax((2, 3)) for r in (0, 2) for c in (0, 2)]
        assert torch.equal(cells(images), torch.cat(quadrants, dim=1))
        assert torch.equal(whole(images), maps.amax((2, 3)))
        assert maps.min() < 0  # no activation after the last addition (Q13)


def test_arch2_taps():
    model = build("arch2", 1, 28).eval()
    images = torch.rand(2, 1, 28, 28)
    features = model(images)
    assert model.taps == (784, 1440, 320) and features.shape == (2, 2544)
    assert torch.equal(features[:, :784], images.flatten(1))
    small = build("cnn", 1, 28).eval()
    assert torch.equal(features[:, -320:], small(images))


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("cifar_cnn", 4, {}),
        ("vgg11_bn", 28, {}),
        ("resnet18_thin", 8, {}),
        ("resnet18_thin", 32, {"pool": 3}),
        ("densenet", 32, {"depth": 99}),
        ("lenet5", 24, {}),
        ("bn_inception", 16, {}),
        ("vgg_c", 16, {}),
    ],
)
def test_refusals(name, size, options):
    with pytest.raises(UserError, match=r"px|pool|depth"):
        build(name, image_size=size, **options)


def test_response_norm_follows_the_first_convolution_alone():
    norms = [
        i for i, m in enumerate(build("vgg_a_lrn").layers) if isinstance(m, nn.LocalResponseNorm)
    ]
    assert norms == [2]
