"""Older networks that are in neither torchvision nor timm.

LeNet-5, BN-Inception, and the columns A-LRN and C of the VGG paper. Its columns A, B, D and E are
torchvision's ``vgg11``, ``vgg13``, ``vgg16`` and ``vgg19``.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES, Backbone, check_image_size

# Maps of S2 that each of the 16 maps of C3 reads (table I of LeCun et al. 1998): three and four
# neighbours, cyclically; three times two pairs of neighbours; all six.
CONNECTIONS = (
    *(tuple((i + k) % 6 for k in range(3)) for i in range(6)),
    *(tuple((i + k) % 6 for k in range(4)) for i in range(6)),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


class _Subsample(nn.Module):
    """2x2 average, times a trainable coefficient plus a bias for each map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = (p.view(1, -1, 1, 1) for p in (self.coefficient, self.bias))
        return F.avg_pool2d(x, 2) * scale + shift


class _TableConv(nn.Module):
    """5x5 convolution from 6 to 16 maps in which only the connections of the table exist."""

    _places: Tensor

    def __init__(self) -> None:
        super().__init__()
        pairs = [(out, map_in) for out, maps in enumerate(CONNECTIONS) for map_in in maps]
        places = [out * 6 + map_in for out, map_in in pairs]
        self.register_buffer("_places", torch.tensor(places), persistent=False)
        self.weight = nn.Parameter(torch.empty(len(pairs), 5, 5))
        self.bias = nn.Parameter(torch.zeros(len(CONNECTIONS)))
        with torch.no_grad():
            for index, (out, _) in enumerate(pairs):
                bound = (len(CONNECTIONS[out]) * 25) ** -0.5
                nn.init.uniform_(self.weight[index], -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        zeros = self.weight.new_zeros(len(CONNECTIONS) * 6, 5, 5)
        full = zeros.index_copy(0, self._places, self.weight)
        return F.conv2d(x, full.view(-1, 6, 5, 5), self.bias)


@BACKBONES.register("lenet5")
def lenet5(channels: int, image_size: int) -> Backbone:
    """Layers C1 to C5 of LeNet-5 (LeCun et al. 1998); F6 and the output layer are in the head.

    tanh after every layer, subsampling as a 2x2 average with a trainable coefficient and bias for
    each map, C3 with its connection table. 28x28 images are padded with zeros to 32x32, which
    give 120 features. Plain tanh, where the paper scales it (1.7159 tanh(2x/3)).
    """
    check_image_size(image_size, 28)
    padding = 2 if image_size < 32 else 0
    side = (((image_size + 2 * padding - 4) // 2 - 4) // 2) - 4
    parts = [
        nn.Conv2d(channels, 6, 5, padding=padding),
        _Subsample(6),
        _TableConv(),
        _Subsample(16),
        nn.Conv2d(16, 120, 5),
    ]
    return Backbone([layer for part in parts for layer in (part, nn.Tanh())], 120 * side * side)


# Figure 5 of the BN-Inception paper: 1x1, 3x3 (reduced, out), double 3x3 (reduced, out), pooling
# and the width of its projection. Modules without the 1x1 branch (0) have stride 2 and no
# projection.
MODULES: dict[str, tuple[int, int, int, int, int, str, int]] = {
    "3a": (64, 64, 64, 64, 96, "avg", 32),
    "3b": (64, 64, 96, 64, 96, "avg", 64),
    "3c": (0, 128, 160, 64, 96, "max", 0),
    "4a": (224, 64, 96, 96, 128, "avg", 128),
    "4b": (192, 96, 128, 96, 128, "avg", 128),
    "4c": (160, 128, 160, 128, 160, "avg", 128),
    "4d": (96, 128, 192, 160, 192, "avg", 128),
    "4e": (0, 128, 192, 192, 256, "max", 0),
    "5a": (352, 192, 320, 160, 224, "avg", 128),
    "5b": (352, 192, 320, 192, 224, "max", 128),
}


def _conv(width_in: int, width: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    conv = nn.Conv2d(width_in, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class _Inception(nn.Module):
    """Parallel branches, concatenated along the channels."""

    def __init__(
        self, width: int, one: int, r3: int, out3: int, rd: int, outd: int, pool: str, project: int
    ) -> None:
        super().__init__()
        stride = 1 if one else 2
        pooling = nn.AvgPool2d if pool == "avg" else nn.MaxPool2d
        branches = [
            nn.Sequential(_conv(width, r3, 1), _conv(r3, out3, 3, stride)),
            nn.Sequential(_conv(width, rd, 1), _conv(rd, outd, 3), _conv(outd, outd, 3, stride)),
        ]
        if one:
            branches.insert(0, _conv(width, one, 1))
        projection = [_conv(width, project, 1)] if project else []
        branches.append(nn.Sequential(pooling(3, stride, padding=1), *projection))
        self.branches = nn.ModuleList(branches)
        self.width = one + out3 + outd + (project or width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


@BACKBONES.register("bn_inception")
def bn_inception(channels: int, image_size: int) -> Backbone:
    """GoogLeNet with batch norm and two 3x3 convolutions for each 5x5 (arXiv 1502.03167).

    224x224 images give 1024 features. The first convolution is an ordinary 7x7, as in common
    implementations, where the paper's figure has a separable one. Module 4c has 608 channels
    where the figure prints 576.
    """
    check_image_size(image_size, 32)
    layers: list[nn.Module] = [
        _conv(channels, 64, 7, 2),
        nn.MaxPool2d(3, 2, padding=1),
        _conv(64, 64, 1),
        _conv(64, 192, 3),
        nn.MaxPool2d(3, 2, padding=1),
    ]
    width = 192
    for sizes in MODULES.values():
        module = _Inception(width, *sizes)
        layers.append(module)
        width = module.width
    return Backbone([*layers, nn.AdaptiveAvgPool2d(1)], width)


# output channels and kernel sizes of each block of table 1 of the VGG paper
VGG_BLOCKS = {
    "vgg_a_lrn": ((64, (3,)), (128, (3,)), (256, (3, 3)), (512, (3, 3)), (512, (3, 3))),
    "vgg_c": ((64, (3, 3)), (128, (3, 3)), (256, (3, 3, 1)), (512, (3, 3, 1)), (512, (3, 3, 1))),
}


def plain_vgg(name: str, channels: int, image_size: int) -> Backbone:
    """Column A-LRN or C of the VGG paper, without batch norm (arXiv 1409.1556).

    224x224 images give 512 x 7 x 7 = 25088 features; maps of other sizes are averaged to 7x7, as
    torchvision does for the other columns. He initialisation, zero biases: without batch norm
    PyTorch's default does not train at this depth.
    """
    check_image_size(image_size, 32)
    layers: list[nn.Module] = []
    for width, kernels in VGG_BLOCKS[name]:
        for kernel in kernels:
            conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
            layers += [conv, nn.ReLU(inplace=True)]
            channels = width
        if name == "vgg_a_lrn" and width == 64:
            # AlexNet's constants; torch divides alpha by the window, the papers do not
            layers.append(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0))
        layers.append(nn.MaxPool2d(2))
    for module in layers:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return Backbone([*layers, nn.AdaptiveAvgPool2d(7)], channels * 7 * 7)


for _name in VGG_BLOCKS:
    BACKBONES.register(_name)(partial(plain_vgg, _name))
