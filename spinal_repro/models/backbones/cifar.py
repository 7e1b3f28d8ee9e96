"""The convolutional network of the CIFAR "CNN dropout" scripts."""

from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES

BLOCKS = ((32, 64), (128, 128), (256, 256))


@BACKBONES.register("cifar_cnn")
class CifarCNN(nn.Module):
    """Three blocks of two 3x3 convolutions (``CNN_dropout_*_CIFAR*.py``; recipes 2.4).

    32x32 images give 256 x 4 x 4 = 4096 features. Only the first convolution of a block has
    batch norm; the second block ends in Dropout2d 0.05. PyTorch's default initialisation.
    """

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        side = image_size // 2 ** len(BLOCKS)
        if side < 1:
            raise ValueError(f"images of {image_size} px are too small; 8 px or more are needed")
        layers: list[nn.Module] = []
        for number, (first, second) in enumerate(BLOCKS):
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
        self.layers = nn.Sequential(*layers)
        self.num_features = channels * side * side

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` to features ``[N, D]``."""
        features: Tensor = self.layers(images)
        return features.flatten(1)
