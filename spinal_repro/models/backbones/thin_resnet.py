"""The thin ResNets of the CIFAR scripts: not the ResNets of the ResNet paper (Q13)."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES

WIDTHS = (32, 64, 128, 256)
DEPTHS = {"resnet18_thin": (2, 2, 2, 2), "resnet34_thin": (3, 4, 6, 3)}
POOLS = (1, 2, 4)


def _conv(width_in: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; no activation after the addition (Q13)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(width_in, width, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            _conv(width, width),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:  # 3x3 where the ResNet paper has 1x1 (Q13)
            self.shortcut = nn.Sequential(_conv(width_in, width, stride), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class ThinResNet(nn.Module):
    """Stem and four stages of 32 to 256 channels (``ResNet_*_CIFAR*.py``; recipes 2.6).

    32x32 images give maps of 256 x 4 x 4, max-pooled ``pool`` x ``pool``. With ``pool=4`` there
    is one vector of 256 features, as for the original's FC head. With ``pool=2`` the four cells
    of a 2x2 map follow each other, each with all its channels: (0,0), (0,1), (1,0), (1,1), 1024
    features, so that a Spinal head with four splits reads one cell per layer (Q12). Convolutions
    start Kaiming normal (fan out), batch norm at 1 and 0.
    """

    def __init__(
        self, blocks: tuple[int, ...], channels: int, image_size: int, *, pool: int = 4
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(map(str, POOLS))}, got {pool}")
        side = -(-image_size // 8)
        if side < pool:
            raise ValueError(
                f"images of {image_size} px end in {side}x{side} maps, smaller than pool={pool}"
            )
        self.stem = nn.Sequential(
            _conv(channels, WIDTHS[0]),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.02),
        )
        stages: list[nn.Module] = []
        width_in = WIDTHS[0]
        for stage, (width, count) in enumerate(zip(WIDTHS, blocks, strict=True)):
            for position in range(count):
                stages.append(_Block(width_in, width, 2 if stage and not position else 1))
                width_in = width
        self.stages = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.pool = pool
        self.num_features = WIDTHS[-1] * (side // pool) ** 2

    def forward(self, images: Tensor) -> Tensor:
        cells = F.max_pool2d(self.stages(self.stem(images)), self.pool)
        return cells.permute(0, 2, 3, 1).flatten(1)


for _name, _blocks in DEPTHS.items():
    BACKBONES.register(_name)(partial(ThinResNet, _blocks))
