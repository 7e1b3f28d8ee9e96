"""LeNet-5, the first network of the history that leads to SpinalNet."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES

# Maps of S2 that each of the 16 maps of C3 reads (table I of LeCun et al. 1998): all runs of three
# and of four neighbours around the circle, three pairs of pairs, and all six.
CONNECTIONS = (
    *(tuple((i + k) % 6 for k in range(3)) for i in range(6)),
    *(tuple((i + k) % 6 for k in range(4)) for i in range(6)),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


class _Subsample(nn.Module):
    """2x2 average, times a trainable coefficient plus a bias for each map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, width, H, W]`` to half their side."""
        scale, shift = (p.view(1, -1, 1, 1) for p in (self.coefficient, self.bias))
        return F.avg_pool2d(x, 2) * scale + shift


class _TableConv(nn.Module):
    """5x5 convolution from 6 to 16 maps in which only the connections of the table exist."""

    _places: Tensor

    def __init__(self) -> None:
        super().__init__()
        pairs = [(out, map_in) for out, maps in enumerate(CONNECTIONS) for map_in in maps]
        places = [out * 6 + map_in for out, map_in in pairs]
        self.register_buffer("_places", torch.tensor(places), persistent=False)
        self.weight = nn.Parameter(torch.empty(len(pairs), 5, 5))
        self.bias = nn.Parameter(torch.zeros(len(CONNECTIONS)))
        with torch.no_grad():
            for index, (out, _) in enumerate(pairs):
                bound = (len(CONNECTIONS[out]) * 25) ** -0.5
                nn.init.uniform_(self.weight[index], -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, 6, H, W]`` to ``[N, 16, H - 4, W - 4]``."""
        none = self.weight.new_zeros(len(CONNECTIONS) * 6, 5, 5)
        full = none.index_copy(0, self._places, self.weight)
        return F.conv2d(x, full.view(-1, 6, 5, 5), self.bias)


@BACKBONES.register("lenet5")
class LeNet5(nn.Module):
    """Layers C1 to C5 of LeNet-5; F6 and the output layer are the head's.

    tanh after every layer, subsampling as a 2x2 average with a trainable coefficient and bias for
    each map, C3 with its connection table. 28x28 images are padded with zeros to 32x32, which
    give 120 features. Plain tanh, where the 1998 paper scales it (1.7159 tanh(2x/3)).
    """

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        self._padding = 2 if image_size == 28 else 0
        side = (((image_size + 2 * self._padding - 4) // 2 - 4) // 2) - 4
        if side < 1:
            raise ValueError(f"images of {image_size} px are too small; 28 px or more are needed")
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=self._padding),
            nn.Tanh(),
            _Subsample(6),
            nn.Tanh(),
            _TableConv(),
            nn.Tanh(),
            _Subsample(16),
            nn.Tanh(),
            nn.Conv2d(16, 120, 5),
            nn.Tanh(),
        )
        self.num_features = 120 * side * side

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` to features ``[N, D]``."""
        features: Tensor = self.layers(images)
        return features.flatten(1)
