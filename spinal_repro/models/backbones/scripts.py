"""The networks of the MNIST, EMNIST and CIFAR scripts, and raw pixels as features."""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES, Backbone, check_image_size

VGG5_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (256, 256, 256))
CNN_BLOCKS = ((32, 64), (128, 128), (256, 256))
VGG_WIDTHS = (64, 128, 256, 512, 512)
# number of convolutions in each of the five blocks
VGG_DEPTHS = {
    "vgg11_bn": (1, 1, 2, 2, 2),
    "vgg13_bn": (2, 2, 2, 2, 2),
    "vgg16_bn": (2, 2, 3, 3, 3),
    "vgg19_bn": (2, 2, 4, 4, 4),
}
# the thin ResNets: not the ResNets of the ResNet paper (Q13)
THIN_WIDTHS = (32, 64, 128, 256)
THIN_DEPTHS = {"resnet18_thin": (2, 2, 2, 2), "resnet34_thin": (3, 4, 6, 3)}


@BACKBONES.register("flatten")
def flatten(channels: int, image_size: int) -> Backbone:
    """No backbone: the pixels, row by row, are the features."""
    return Backbone([], channels * image_size * image_size)


@BACKBONES.register("cnn")
class SmallCNN(nn.Module):
    """Two 5x5 convolutions, 10 and 20 channels (``default_pytorch_MNIST.py``; recipes 2.1).

    28x28 images give 20 x 4 x 4 = 320 features. PyTorch's default initialisation.
    """

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        check_image_size(image_size, 16)
        side = ((image_size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(channels, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.dropout = nn.Dropout2d(0.5)
        self.num_features = 20 * side * side

    def blocks(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps after the first and the second convolution, pooled.

        Dropping whole maps before the pooling, as the script does, gives the same and takes longer.
        """
        first = F.relu(F.max_pool2d(self.conv1(images), 2))
        return first, F.relu(self.dropout(F.max_pool2d(self.conv2(first), 2)))

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(images)[1].flatten(1)


@BACKBONES.register("arch2")
class Arch2(SmallCNN):
    """`SmallCNN` with three taps (``MNIST/Arch2_*.py``; recipes 2.2).

    28x28 images give [pixels 784, first convolution 10 x 12 x 12 = 1440, second convolution
    20 x 4 x 4 = 320] = 2544 features, concatenated in this order. The original gives each tap its
    own Spinal stack.
    """

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        side = (image_size - 4) // 2
        self.num_features += channels * image_size * image_size + 10 * side * side

    def forward(self, images: Tensor) -> Tensor:
        taps = images, *self.blocks(images)
        return torch.cat([tap.flatten(1) for tap in taps], dim=1)


def vgg(
    blocks: Sequence[Sequence[int]], channels: int, image_size: int, normal: bool = False
) -> Backbone:
    """Pooled blocks of 3x3 convolutions with bias, each followed by batch norm and ReLU.

    VGG-11, 13, 16 and 19 for small images (``VGG_*_CIFAR*.py``; recipes 2.5) give 512 features of
    32x32 images. PyTorch's default initialisation, or with ``normal`` that of `vgg5`.
    """
    check_image_size(image_size, 2 ** len(blocks))
    layers: list[nn.Module] = []
    for block in blocks:
        for width in block:
            conv = nn.Conv2d(channels, width, 3, padding=1)
            if normal:
                nn.init.normal_(conv.weight, 0.0, math.sqrt(2 / (9 * width)))
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return Backbone(layers, channels * (image_size // 2 ** len(blocks)) ** 2)


@BACKBONES.register("vgg5")
def vgg5(channels: int, image_size: int) -> Backbone:
    """Ten 3x3 convolutions with batch norm in four pooled blocks (``MNIST_VGG/``; recipes 2.3).

    28x28 images give 256 features. Convolution weights start as Normal(0, sqrt(2 / (9 * out)));
    biases keep PyTorch's default. The authors call it VGG-5.
    """
    return vgg(VGG5_BLOCKS, channels, image_size, normal=True)


@BACKBONES.register("cifar_cnn")
def cifar_cnn(channels: int, image_size: int) -> Backbone:
    """Three blocks of two 3x3 convolutions (``CNN_dropout_*_CIFAR*.py``; recipes 2.4).

    32x32 images give 256 x 4 x 4 = 4096 features. Only the first convolution of a block has
    batch norm; the second block ends in Dropout2d 0.05. PyTorch's default initialisation.
    """
    check_image_size(image_size, 8)
    layers: list[nn.Module] = []
    for number, (first, second) in enumerate(CNN_BLOCKS):
        layers += [
            nn.Conv2d(channels, first, 3, padding=1),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        if number == 1:
            layers.append(nn.Dropout2d(0.05))
        channels = second
    return Backbone(layers, channels * (image_size // 8) ** 2)


def check_pool(pool: int, side: int, image_size: int) -> None:
    """Refuse pooling that is wider than the maps."""
    if not 1 <= pool <= side:
        raise ValueError(f"pool must be 1 to {side} for images of {image_size} px, got {pool}")


def _conv(width_in: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)


def normed_conv(width_in: int, width: int, stride: int = 1) -> list[nn.Module]:
    """A 3x3 convolution without bias, batch norm and ReLU."""
    return [_conv(width_in, width, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; no activation after the addition (Q13)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *normed_conv(width_in, width, stride), _conv(width, width), nn.BatchNorm2d(width)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:  # 3x3 where the ResNet paper has 1x1 (Q13)
            self.shortcut = nn.Sequential(_conv(width_in, width, stride), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class ThinResNet(nn.Module):
    """Stem and four stages of 32 to 256 channels (``ResNet_*_CIFAR*.py``; recipes 2.6).

    32x32 images give maps of 256 x 4 x 4, max-pooled ``pool`` x ``pool``. With ``pool=4`` there
    is one vector of 256 features, as for the original's FC head. With ``pool=2`` the four cells
    of a 2x2 map follow each other, each with all its channels: (0,0), (0,1), (1,0), (1,1), 1024
    features, so that a Spinal head with four splits reads one cell per layer (Q12). Convolutions
    start Kaiming normal (fan out), batch norm at 1 and 0.
    """

    def __init__(
        self, blocks: tuple[int, ...], channels: int, image_size: int, *, pool: int = 4
    ) -> None:
        super().__init__()
        side = -(-image_size // 8)
        check_pool(pool, side, image_size)
        self.stem = nn.Sequential(*normed_conv(channels, THIN_WIDTHS[0]), nn.Dropout2d(0.02))
        stages: list[nn.Module] = []
        width_in = THIN_WIDTHS[0]
        for stage, (width, count) in enumerate(zip(THIN_WIDTHS, blocks, strict=True)):
            for position in range(count):
                stages.append(Block(width_in, width, 2 if stage and not position else 1))
                width_in = width
        self.stages = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.pool = pool
        self.num_features = THIN_WIDTHS[-1] * (side // pool) ** 2

    def forward(self, images: Tensor) -> Tensor:
        cells = F.max_pool2d(self.stages(self.stem(images)), self.pool)
        return cells.permute(0, 2, 3, 1).flatten(1)


for _name, _blocks in THIN_DEPTHS.items():
    BACKBONES.register(_name)(partial(ThinResNet, _blocks))
for _name, _depths in VGG_DEPTHS.items():
    _widths = tuple((width,) * depth for width, depth in zip(VGG_WIDTHS, _depths, strict=True))
    BACKBONES.register(_name)(partial(vgg, _widths))
