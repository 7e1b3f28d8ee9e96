"""The networks of the early CIFAR-10 scripts, which the authors deleted (recipes 4.5)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES, Backbone, check_image_size
from spinal_repro.models.backbones.scripts import Block, check_pool, normed_conv

GROWTH, CONVOLUTIONS = 32, 5  # of a dense block


class _DenseBlock(nn.Module):
    """Batch norm, then five 3x3 convolutions, each followed by ReLU.

    The first reads the normed input, the others all earlier outputs. Their 5 x 32 channels are
    the output, without the input of the block.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        widths = [width, *(GROWTH * n for n in range(1, CONVOLUTIONS))]
        self.convs = nn.ModuleList(nn.Conv2d(w, GROWTH, 3, padding=1) for w in widths)

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        x = self.norm(x)
        for conv in self.convs:
            outputs.append(F.relu(conv(x)))
            x = torch.cat(outputs, dim=1)
        return x


@BACKBONES.register("densenet")
def densenet(channels: int, image_size: int) -> Backbone:
    """The authors' own DenseNet (``Default_Densenet.py``): three dense blocks and transitions.

    32x32 images give 64 x 4 x 4 = 1024 features. PyTorch's default initialisation. The scripts
    also build a fourth dense block that they never call; it is not built here.
    """
    check_image_size(image_size, 8)
    width = 64
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 7, padding=3, bias=False),
        nn.ReLU(inplace=True),
    ]
    for width_out in (128, 128, 64):
        layers += [
            _DenseBlock(width),
            nn.Conv2d(CONVOLUTIONS * GROWTH, width_out, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(width_out),
            nn.AvgPool2d(2),
        ]
        width = width_out
    return Backbone([*layers, nn.BatchNorm2d(width)], width * (image_size // 8) ** 2)


@BACKBONES.register("tutorial_cnn")
def tutorial_cnn(channels: int, image_size: int) -> Backbone:
    """Two 5x5 convolutions, 6 and 16 channels, as in PyTorch's tutorial on training a classifier.

    32x32 images give 16 x 5 x 5 = 400 features. PyTorch's default initialisation.
    """
    check_image_size(image_size, 16)
    layers: list[nn.Module] = []
    for width_in, width in ((channels, 6), (6, 16)):
        layers += [nn.Conv2d(width_in, width, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return Backbone(layers, 16 * (((image_size - 4) // 2 - 4) // 2) ** 2)


@BACKBONES.register("tutorial_resnet")
def tutorial_resnet(channels: int, image_size: int, *, pool: int = 8) -> Backbone:
    """Three stages of two blocks, 16 to 64 channels (``Default_ResNet_CIFAR10.py``).

    32x32 images give maps of 64 x 8 x 8, averaged ``pool`` x ``pool``: one vector of 64 features
    with ``pool=8``, the 1024 features that the script's Spinal head reads with ``pool=2``.
    PyTorch's default initialisation.
    """
    width_in, side = 16, -(-image_size // 4)
    check_pool(pool, side, image_size)
    layers = normed_conv(channels, width_in)
    for width, stride in ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        layers += [Block(width_in, width, stride), nn.ReLU(inplace=True)]
        width_in = width
    return Backbone([*layers, nn.AvgPool2d(pool)], width_in * (side // pool) ** 2)
