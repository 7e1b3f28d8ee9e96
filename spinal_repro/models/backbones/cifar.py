"""The "CNN dropout" network and the VGG networks of the CIFAR scripts."""

import math
from collections.abc import Sequence
from functools import partial

from torch import nn

from spinal_repro.models.backbones import BACKBONES, Backbone, check_image_size

CNN_BLOCKS = ((32, 64), (128, 128), (256, 256))
VGG_WIDTHS = (64, 128, 256, 512, 512)
# number of convolutions in each of the five blocks
VGG_DEPTHS = {
    "vgg11_bn": (1, 1, 2, 2, 2),
    "vgg13_bn": (2, 2, 2, 2, 2),
    "vgg16_bn": (2, 2, 3, 3, 3),
    "vgg19_bn": (2, 2, 4, 4, 4),
}


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


def vgg(
    blocks: Sequence[Sequence[int]], channels: int, image_size: int, normal: bool = False
) -> Backbone:
    """Pooled blocks of 3x3 convolutions with bias, each followed by batch norm and ReLU.

    VGG-11, 13, 16 and 19 for small images (``VGG_*_CIFAR*.py``; recipes 2.5) give 512 features of
    32x32 images. PyTorch's default initialisation, or with ``normal`` that of `mnist.vgg5`.
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


for _name, _depths in VGG_DEPTHS.items():
    _blocks = tuple((width,) * depth for width, depth in zip(VGG_WIDTHS, _depths, strict=True))
    BACKBONES.register(_name)(partial(vgg, _blocks))
