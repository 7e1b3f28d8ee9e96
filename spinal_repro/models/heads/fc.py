"""The fully connected head, and the head of ``MNIST/Arch2_*.py`` that ends in one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spinal_repro.models.heads.common import (
    HEADS,
    check_counts,
    check_probabilities,
    make_activation,
    make_dropout,
    make_layer,
)
from spinal_repro.models.heads.spinal import SpinalStack


@HEADS.register("fc")
class FCHead(nn.Module):
    """Fully connected head: the usual classifier of a network.

    For each hidden width: Dropout, Linear, BatchNorm1d (if ``norm``), activation. Then Dropout
    and the output Linear. ``hidden=()`` is a plain linear classifier.

    Args:
        hidden: Widths of the hidden layers.
        dropout: One probability before each Linear, ``len(hidden) + 1`` of them; empty for none.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden: Sequence[int] = (),
        dropout: Sequence[float] = (),
        norm: bool = False,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_counts(in_features=in_features, num_classes=num_classes)
        for width in hidden:
            check_counts(hidden=width)
        if len(dropout) not in (0, len(hidden) + 1):
            raise ValueError(
                f"dropout needs {len(hidden) + 1} probabilities, one before each Linear, or none; "
                f"got {list(dropout)}"
            )
        for p in dropout:
            check_probabilities(dropout=p)
        make_activation(activation)  # refuses an unknown name without hidden layers too
        before = list(dropout) or [0.0] * (len(hidden) + 1)
        layers: list[nn.Module] = []
        width_in = in_features
        for p, width in zip(before, hidden, strict=False):
            layers += make_layer(width_in, width, p, norm, activation)
            width_in = width
        layers += [*make_dropout(before[-1]), nn.Linear(width_in, num_classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


@HEADS.register("arch2")
class Arch2Head(nn.Module):
    """One Spinal stack for each tap of a backbone (recipes 2.2).

    The features are those of the taps, concatenated: in the paper's network the raw image (784),
    the first convolution block (1440) and the second (320). Each tap has its own stack with two
    splits and ReLU. All layer outputs, tap by tap, feed Linear, ReLU, Linear.

    Args:
        width: Outputs of one layer of any stack: 30 for MNIST, 50 or 300 for other sets.
        taps: Number of features of each tap.
        layers: Number of layers of each tap's stack; 0: the tap is not read.
        hidden: Width of the hidden layer that reads all stacks.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        width: int = 30,
        taps: Sequence[int] = (784, 1440, 320),
        layers: Sequence[int] = (10, 8, 8),
        hidden: int = 50,
    ) -> None:
        super().__init__()
        if len(taps) != len(layers) or sum(taps) != in_features:
            raise ValueError(
                f"taps must add up to the {in_features} features of the backbone, with one number "
                f"of layers for each; got taps={list(taps)} (sum {sum(taps)}), "
                f"layers={list(layers)}. The backbone with these taps is model=arch2"
            )
        self.taps, self.layers = list(taps), list(layers)
        self.stacks = nn.ModuleList(
            SpinalStack(tap, width=width, layers=n)
            for tap, n in zip(taps, layers, strict=True)
            if n
        )
        self.output = FCHead(sum(layers) * width, num_classes, hidden=(hidden,))

    def forward(self, features: Tensor) -> Tensor:
        taps = features.split(self.taps, dim=1)
        parts = [tap for tap, n in zip(taps, self.layers, strict=True) if n]
        outputs = [stack(part) for stack, part in zip(self.stacks, parts, strict=True)]
        return self.output(torch.cat(outputs, dim=1))
