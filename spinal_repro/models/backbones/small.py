"""The small CNN of the MNIST scripts, and no backbone at all."""

import torch.nn.functional as F
from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES


@BACKBONES.register("cnn")
class SmallCNN(nn.Module):
    """Two 5x5 convolutions, 10 and 20 channels (``default_pytorch_MNIST.py``; recipes 2.1).

    28x28 images give 20 x 4 x 4 = 320 features. PyTorch's default initialisation.
    """

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        side = ((image_size - 4) // 2 - 4) // 2
        if side < 1:
            raise ValueError(f"images of {image_size} px are too small; 16 px or more are needed")
        self.conv1 = nn.Conv2d(channels, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.dropout = nn.Dropout2d(0.5)
        self.num_features = 20 * side * side

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` to features ``[N, D]``."""
        x = F.relu(F.max_pool2d(self.conv1(images), 2))
        x = F.relu(F.max_pool2d(self.dropout(self.conv2(x)), 2))
        return x.flatten(1)


@BACKBONES.register("flatten")
class Flatten(nn.Module):
    """Pixels as features, row by row: the head as an independent network."""

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        self.num_features = channels * image_size * image_size

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` to features ``[N, C * H * W]``."""
        return images.flatten(1)
