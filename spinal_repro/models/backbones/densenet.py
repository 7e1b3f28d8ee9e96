"""DenseNet for 32 px images.

The original repository deleted its DenseNet scripts on 2020-07-02 (recipes 4.4), so this is
inferred: the smallest bottleneck-compression network of the DenseNet paper (arXiv 1608.06993).
"""

import torch
from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES, Backbone, check_image_size

BOTTLENECK = 4  # channels of a 1x1 convolution, as a multiple of the growth
COMPRESSION = 2  # a transition divides the channels by this


class _Dense(nn.Module):
    """BN, ReLU, 1x1, BN, ReLU, 3x3; its ``growth`` channels are appended to its input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        inner = BOTTLENECK * growth
        self.layers = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], dim=1)


@BACKBONES.register("densenet")
def densenet(channels: int, image_size: int, *, depth: int = 100, growth: int = 12) -> Backbone:
    """DenseNet-BC with three dense blocks, by default L = 100 and k = 12.

    32x32 images give 342 features, averaged over the last 8x8 map. Kaiming normal convolutions.

    Args:
        depth: L, the number of convolutions plus the classifier; 6 n + 4.
        growth: k, the channels that a layer adds.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth must be 6 n + 4 (10, 16, ..., 100), got {depth}")
    if growth < 1:
        raise ValueError(f"growth must be 1 or more, got {growth}")
    check_image_size(image_size, 4)
    width = 2 * growth
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
    for block in range(3):
        for _ in range((depth - 4) // 6):
            layers.append(_Dense(width, growth))
            width += growth
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if block < 2:
            narrow = width // COMPRESSION
            layers += [nn.Conv2d(width, narrow, 1, bias=False), nn.AvgPool2d(2)]
            width = narrow
    backbone = Backbone([*layers, nn.AdaptiveAvgPool2d(1)], width)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return backbone
