"""BN-Inception, also called Inception v2: in neither torchvision nor timm."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES

# Ioffe and Szegedy 2015 (arXiv 1502.03167), figure 5: 1x1, 3x3 (reduced, out), double 3x3
# (reduced, out), pooling and the width of its projection. Modules with 0 for the 1x1 branch have
# stride 2 and pass the pooled maps on as they are.
MODULES: dict[str, tuple[int, int, int, int, int, str, int]] = {
    "3a": (64, 64, 64, 64, 96, "avg", 32),
    "3b": (64, 64, 96, 64, 96, "avg", 64),
    "3c": (0, 128, 160, 64, 96, "max", 0),
    "4a": (224, 64, 96, 96, 128, "avg", 128),
    "4b": (192, 96, 128, 96, 128, "avg", 128),
    "4c": (160, 128, 160, 128, 160, "avg", 128),
    "4d": (96, 128, 192, 160, 192, "avg", 128),
    "4e": (0, 128, 192, 192, 256, "max", 0),
    "5a": (352, 192, 320, 160, 224, "avg", 128),
    "5b": (352, 192, 320, 192, 224, "max", 128),
}


def _conv(width_in: int, width: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without the bias that batch norm would undo, batch norm, ReLU."""
    conv = nn.Conv2d(width_in, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class _Inception(nn.Module):
    """Parallel branches, joined along the channels."""

    def __init__(
        self, width: int, one: int, r3: int, out3: int, rd: int, outd: int, pool: str, project: int
    ) -> None:
        super().__init__()
        stride = 1 if one else 2
        branches = [
            nn.Sequential(_conv(width, r3, 1), _conv(r3, out3, 3, stride)),
            nn.Sequential(_conv(width, rd, 1), _conv(rd, outd, 3), _conv(outd, outd, 3, stride)),
        ]
        if one:
            branches.insert(0, _conv(width, one, 1))
        pooling: nn.Module = nn.MaxPool2d(3, stride, padding=1)
        if pool == "avg":
            pooling = nn.AvgPool2d(3, stride, padding=1)
        branches.append(nn.Sequential(pooling, *([_conv(width, project, 1)] if project else [])))
        self.branches = nn.ModuleList(branches)
        self.width = one + out3 + outd + (project or width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, C, H, W]`` to ``[N, self.width, H / stride, W / stride]``."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


@BACKBONES.register("bn_inception")
class BNInception(nn.Module):
    """GoogLeNet with batch norm and two 3x3 convolutions for each 5x5 (arXiv 1502.03167).

    224x224 images give 1024 features. The figure's first convolution is a separable one; like
    the implementations in common use this has an ordinary 7x7. Module 4c sums to 608 channels
    where the figure prints 576.
    """

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        if image_size < 32:
            raise ValueError(f"images of {image_size} px are too small; 32 px or more are needed")
        layers: list[nn.Module] = [
            _conv(channels, 64, 7, 2),
            nn.MaxPool2d(3, 2, padding=1),
            _conv(64, 64, 1),
            _conv(64, 192, 3),
            nn.MaxPool2d(3, 2, padding=1),
        ]
        width = 192
        for sizes in MODULES.values():
            module = _Inception(width, *sizes)
            layers.append(module)
            width = module.width
        self.layers = nn.Sequential(*layers)
        self.num_features = width

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` to features ``[N, 1024]``."""
        return F.adaptive_avg_pool2d(self.layers(images), 1).flatten(1)
