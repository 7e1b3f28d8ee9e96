"""The networks of the MNIST and EMNIST scripts, and raw pixels as features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES, Backbone, check_image_size
from spinal_repro.models.backbones.cifar import vgg

VGG5_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (256, 256, 256))


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
        """Maps after the first and the second convolution, pooled."""
        first = F.relu(F.max_pool2d(self.conv1(images), 2))
        return first, F.relu(F.max_pool2d(self.dropout(self.conv2(first)), 2))

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


@BACKBONES.register("vgg5")
def vgg5(channels: int, image_size: int) -> Backbone:
    """Ten 3x3 convolutions with batch norm in four pooled blocks (``MNIST_VGG/``; recipes 2.3).

    28x28 images give 256 features. Convolution weights start as Normal(0, sqrt(2 / (9 * out)));
    biases keep PyTorch's default. The authors call it VGG-5.
    """
    return vgg(VGG5_BLOCKS, channels, image_size, normal=True)
