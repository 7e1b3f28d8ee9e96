"""The backbone that the SpinalNet authors call VGG-5."""

import math

from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (256, 256, 256))


@BACKBONES.register("vgg5")
class VGG5(nn.Module):
    """Ten 3x3 convolutions with batch norm in four pooled blocks (``MNIST_VGG/``; recipes 2.3).

    28x28 images give 256 features. Convolution weights start as Normal(0, sqrt(2 / (9 * out)));
    biases keep PyTorch's default.
    """

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        side = image_size // 2 ** len(BLOCKS)
        if side < 1:
            raise ValueError(f"images of {image_size} px are too small; 16 px or more are needed")
        layers: list[nn.Module] = []
        for block in BLOCKS:
            for width in block:
                conv = nn.Conv2d(channels, width, 3, padding=1)
                nn.init.normal_(conv.weight, 0.0, math.sqrt(2 / (9 * width)))
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)
        self.num_features = channels * side * side

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` to features ``[N, D]``."""
        features: Tensor = self.layers(images)
        return features.flatten(1)
