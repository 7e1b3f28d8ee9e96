"""The VGG family: the 32 px nets of the CIFAR scripts, and A-LRN and C of the VGG paper.

Columns A, B, D and E of the VGG paper at 224 px are in torchvision (``vgg11``, ``vgg13``,
``vgg16``, ``vgg19``); A-LRN and C are in neither library.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES

# kernel sizes of the convolutions of each of the five blocks
COLUMNS: dict[str, tuple[tuple[int, ...], ...]] = {
    "A": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "B": ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    "C": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    "D": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "E": ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}
WIDTHS = (64, 128, 256, 512, 512)


def _blocks(
    channels: int, kernels: Sequence[Sequence[int]], *, batch_norm: bool, response_norm: bool
) -> nn.Sequential:
    """Convolutions that keep the size, ReLU after each, five times halved by max pooling."""
    layers: list[nn.Module] = []
    for width, block in zip(WIDTHS, kernels, strict=True):
        for kernel in block:
            layers.append(nn.Conv2d(channels, width, kernel, padding=kernel // 2))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            channels = width
        if response_norm and width == WIDTHS[0]:
            # AlexNet's constants; torch divides alpha by the window, the papers do not
            layers.append(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0))
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class CifarVGG(nn.Module):
    """VGG-11, 13, 16 or 19 with batch norm for small images (recipes 2.5).

    ``VGG_*_CIFAR*.py``: columns A, B, D, E; each convolution 3x3 with bias, batch norm, ReLU;
    default initialisation. 32x32 images give 512 features.

    Args:
        column: A key of `COLUMNS`.
        channels: Channels of the images.
        image_size: Their side in pixels, 32 or more.
    """

    def __init__(self, column: str, channels: int, image_size: int) -> None:
        super().__init__()
        side = image_size // 2 ** len(WIDTHS)
        if side < 1:
            raise ValueError(f"images of {image_size} px are too small; 32 px or more are needed")
        self.layers = _blocks(channels, COLUMNS[column], batch_norm=True, response_norm=False)
        self.num_features = WIDTHS[-1] * side * side

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` to features ``[N, D]``."""
        features: Tensor = self.layers(images)
        return features.flatten(1)


for _name, _column in {"vgg11_bn": "A", "vgg13_bn": "B", "vgg16_bn": "D", "vgg19_bn": "E"}.items():
    BACKBONES.register(_name)(partial(CifarVGG, _column))


class PlainVGG(nn.Module):
    """A column of table 1 of the VGG paper without batch norm (arXiv 1409.1556).

    224x224 images give 512 x 7 x 7 = 25088 features; maps of other sizes are averaged to 7x7, as
    torchvision does for the other columns. He initialisation, zero biases: without batch norm
    PyTorch's default does not train at this depth.

    Args:
        column: A key of `COLUMNS`.
        response_norm: Local response normalisation after the first convolution (A-LRN).
        channels: Channels of the images.
        image_size: Their side in pixels, 32 or more.
    """

    def __init__(self, column: str, response_norm: bool, channels: int, image_size: int) -> None:
        super().__init__()
        if image_size < 32:
            raise ValueError(f"images of {image_size} px are too small; 32 px or more are needed")
        self.layers = _blocks(
            channels, COLUMNS[column], batch_norm=False, response_norm=response_norm
        )
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.num_features = WIDTHS[-1] * 7 * 7

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` to features ``[N, 25088]``."""
        features: Tensor = self.pool(self.layers(images))
        return features.flatten(1)


BACKBONES.register("vgg_a_lrn")(partial(PlainVGG, "A", True))
BACKBONES.register("vgg_c")(partial(PlainVGG, "C", False))
