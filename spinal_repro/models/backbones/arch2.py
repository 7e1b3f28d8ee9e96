"""The three-tap network of ``MNIST/Arch2_*.py``."""

import torch
import torch.nn.functional as F
from torch import Tensor

from spinal_repro.models.backbones import BACKBONES
from spinal_repro.models.backbones.small import SmallCNN


@BACKBONES.register("arch2")
class Arch2(SmallCNN):
    """The small CNN, whose head sees image and both convolutions (recipes 2.2).

    28x28 images give [pixels 784, first convolution 10 x 12 x 12 = 1440, second convolution
    20 x 4 x 4 = 320] = 2544 features, one after the other in this order. ``taps`` holds the three
    lengths; the original gives each tap a spinal stack of its own.
    """

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        side = (image_size - 4) // 2
        self.taps = (channels * image_size * image_size, 10 * side * side, self.num_features)
        self.num_features = sum(self.taps)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` to features ``[N, D]``."""
        first = F.relu(F.max_pool2d(self.conv1(images), 2))
        second = F.relu(F.max_pool2d(self.dropout(self.conv2(first)), 2))
        return torch.cat([images.flatten(1), first.flatten(1), second.flatten(1)], dim=1)
