"""Heads: features ``[N, D]`` to logits ``[N, C]``. They know nothing of backbones or images.

``SpinalHead`` is one class for every variant of the paper: number of splits and layers, dropout,
batch norm, activation and weight sharing are arguments. ``FCHead`` is what the paper compares
it with.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spinal_repro.errors import unknown
from spinal_repro.registry import Registry

HEADS: Registry[nn.Module] = Registry("head")

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value}")


def _dropout(p: float) -> list[nn.Module]:
    """No module for p = 0, so that no random number is drawn for it."""
    return [nn.Dropout(p)] if p > 0 else []


@HEADS.register("fc")
class FCHead(nn.Module):
    """Fully connected head: the network's ordinary classifier.

    For each hidden width: Dropout, Linear, BatchNorm1d (if ``norm``), activation. Then Dropout
    and the output Linear. ``hidden=()`` is a plain linear classifier.

    Args:
        in_features: Number of features D.
        num_classes: Number of logits C.
        hidden: Widths of the hidden layers.
        dropout: One probability before each Linear, ``len(hidden) + 1`` of them; empty is none.
        norm: Batch norm between each hidden Linear and its activation.
        activation: A name in `ACTIVATIONS`.

    Raises:
        ValueError: for counts below 1, probabilities outside [0, 1) or a wrong number of them.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden: Sequence[int] = (512,),
        dropout: Sequence[float] = (),
        norm: bool = False,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        _check_counts(in_features=in_features, num_classes=num_classes)
        for width in hidden:
            _check_counts(hidden=width)
        if len(dropout) not in (0, len(hidden) + 1):
            raise ValueError(
                f"dropout needs one probability before each of the {len(hidden) + 1} Linear "
                f"layers, or none at all, got {list(dropout)}"
            )
        for p in dropout:
            _check_probability("dropout", p)
        _activation(activation)  # refuses an unknown name where there is no hidden layer too
        before = list(dropout) or [0.0] * (len(hidden) + 1)
        layers: list[nn.Module] = []
        width_in = in_features
        for p, width in zip(before, hidden, strict=False):
            layers += [*_dropout(p), nn.Linear(width_in, width)]
            if norm:
                layers.append(nn.BatchNorm1d(width))
            layers.append(_activation(activation))
            width_in = width
        layers += [*_dropout(before[-1]), nn.Linear(width_in, num_classes)]
        self.layers = nn.Sequential(*layers)
        self.num_activations = sum(hidden)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[N, D]`` to logits ``[N, C]``."""
        logits: Tensor = self.layers(features)
        return logits


@HEADS.register("spinal")
class SpinalHead(nn.Module):
    """Spinal head: the features enter gradually, a slice with each layer.

    With slice length ``s = round(D / splits)``, layer k reads the k-th consecutive slice of the
    features, starting again from the front when they are used up, followed by the output of
    layer k-1 (recipes: "part first, previous output second"). Each layer is Dropout, Linear,
    BatchNorm1d (if ``norm``), activation. The outputs of all layers, in order, feed the output
    Linear, with the same Dropout before it. ``splits=2`` gives the two halves of the paper.

    Args:
        in_features: Number of features D.
        num_classes: Number of logits C.
        width: Outputs of one layer, w.
        layers: Number of layers, n.
        splits: Number of slices the features are cut into.
        dropout: Probability before every Linear, the output one included.
        norm: Batch norm between each layer's Linear and its activation.
        activation: A name in `ACTIVATIONS`; ``identity`` makes the head an affine map (Q14).
        shared: Layers 2..n use one set of weights (SpinalNet SW).

    Raises:
        ValueError: for counts below 1, or splits and layers with which inputs would never be
            read or slices would be empty.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        width: int = 128,
        layers: int = 4,
        splits: int = 2,
        dropout: float = 0.0,
        norm: bool = False,
        activation: str = "relu",
        shared: bool = False,
    ) -> None:
        super().__init__()
        _check_counts(
            in_features=in_features,
            num_classes=num_classes,
            width=width,
            layers=layers,
            splits=splits,
        )
        _check_probability("dropout", dropout)
        size = round(in_features / splits)  # halves to even, as NumPy does in the original
        if size < 1:
            raise ValueError(
                f"splits={splits} cuts {in_features} features into empty slices; "
                f"use splits={in_features} or fewer"
            )
        if layers * size < in_features:
            needed = -(-in_features // size)
            raise ValueError(
                f"{layers} layers read slices of {size} and never reach the last "
                f"{in_features - layers * size} of {in_features} features; use layers={needed} "
                f"or more, or fewer splits than {splits}"
            )
        self.in_features, self.slice_size, self.num_layers = in_features, size, layers
        distinct = min(layers, 2) if shared else layers
        self.layers = nn.ModuleList()
        for k in range(distinct):
            linear = nn.Linear(size if k == 0 else size + width, width)
            parts = [*_dropout(dropout), linear]
            if norm:
                parts.append(nn.BatchNorm1d(width))
            self.layers.append(nn.Sequential(*parts, _activation(activation)))
        self.output = nn.Sequential(*_dropout(dropout), nn.Linear(layers * width, num_classes))
        self.num_activations = layers * width

    def pre_logits(self, features: Tensor) -> Tensor:
        """Features ``[N, D]`` to the concatenated layer outputs ``[N, layers * width]``."""
        size, end = self.slice_size, self.num_layers * self.slice_size
        repeats = -(-end // self.in_features)
        tiled = features if repeats == 1 else features.repeat(1, repeats)
        outputs: list[Tensor] = []
        for k in range(self.num_layers):
            part = tiled[:, k * size : (k + 1) * size]
            layer = self.layers[min(k, len(self.layers) - 1)]
            outputs.append(layer(torch.cat([part, outputs[-1]], dim=1) if k else part))
        return torch.cat(outputs, dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[N, D]`` to logits ``[N, C]``."""
        logits: Tensor = self.output(self.pre_logits(features))
        return logits
