"""The Spinal head and the stack of layers that makes it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spinal_repro.models.heads.common import (
    HEADS,
    check_counts,
    check_layers,
    check_probability,
    make_dropout,
    make_layer,
    pad_linear_inputs,
)


class SpinalStack(nn.Module):
    """Layers through which features enter gradually, a slice with each layer (recipes 1.1, 5).

    With slice length ``s = round(D / splits)``, layer k reads the k-th consecutive slice of the
    features, starting again from the front when they are used up, followed by the output of
    layer k-1 ("part first, previous output second"). Each layer is Dropout, Linear, BatchNorm1d
    (if ``norm``), activation. The outputs of all layers, in order, are the output of the stack.

    Args:
        in_features: Number of features D.
        width: Outputs of one layer, w.
        layers: Number of layers, n.
        splits: Number of slices the features are cut into; 2 gives the two halves of the paper.
        dropout: Probability before every Linear.
        norm: Batch norm between each layer's Linear and its activation.
        activation: A name in `ACTIVATIONS`; ``identity`` makes the stack an affine map (Q14).
        shared: Layers 2..n use one set of weights (SpinalNet SW; recipes 6).
        order: Which layer's weights each step uses, counted from 1. Empty is every step its own.
            ``(1, 2, 3, 4, 3, 4)`` is the scripts' reading of six layers (Q2), in which the
            weights of layers 5 and 6 exist and are never used.

    Raises:
        ValueError: for counts below 1, splits and layers with which inputs would never be read
            or slices would be empty, or an order that does not fit the layers.
    """

    def __init__(
        self,
        in_features: int,
        *,
        width: int,
        layers: int,
        splits: int = 2,
        dropout: float = 0.0,
        norm: bool = False,
        activation: str = "relu",
        shared: bool = False,
        order: Sequence[int] = (),
    ) -> None:
        super().__init__()
        check_counts(in_features=in_features, width=width, splits=splits)
        check_layers(layers)
        check_probability("dropout", dropout)
        _check_order(order, layers, shared)
        self.in_features, self.width, self.num_layers = in_features, width, 0
        self.slice_size = _slice_size(in_features, layers, splits)
        self.shared = shared
        self._style = (dropout, norm, activation)
        self.order: list[int] = []  # for each step, which of self.layers it uses
        self.layers = nn.ModuleList()
        for _ in range(layers):
            self._append()
        if order:
            self.order = [number - 1 for number in order]

    def _append(self) -> None:
        """One more step, with weights of its own unless they are shared."""
        if not (self.shared and len(self.layers) == 2):
            previous = self.width if self.num_layers else 0
            self.layers.append(make_layer(self.slice_size + previous, self.width, *self._style))
        self.order.append(len(self.layers) - 1)
        self.num_layers = len(self.order)
        self.num_activations = self.num_layers * self.width

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[N, D]`` to the outputs of all layers ``[N, layers * width]``."""
        size, end = self.slice_size, self.num_layers * self.slice_size
        repeats = -(-end // self.in_features)
        tiled = features if repeats == 1 else features.repeat(1, repeats)
        outputs: list[Tensor] = []
        for k, index in enumerate(self.order):
            part = tiled[..., k * size : (k + 1) * size]
            layer = self.layers[index]
            outputs.append(layer(torch.cat([part, outputs[-1]], dim=1) if k else part))
        return torch.cat(outputs, dim=1)


def _slice_size(in_features: int, layers: int, splits: int) -> int:
    """Length of a slice; refused where the original would silently drop inputs (recipes 5)."""
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
    return size


def _check_order(order: Sequence[int], layers: int, shared: bool) -> None:
    """Refuse an order of layers that the weights do not fit."""
    if not order:
        return
    if shared:
        raise ValueError("shared=true is an order already; give one of shared and order")
    rest = order[1:]
    if len(order) != layers or order[0] != 1 or not all(2 <= number <= layers for number in rest):
        raise ValueError(
            f"order needs {layers} numbers, one for each layer: first 1, which alone reads no "
            f"previous output, then numbers from 2 to {layers}, got {list(order)}"
        )


@HEADS.register("spinal")
class SpinalHead(SpinalStack):
    """Spinal head: a `SpinalStack`, whose outputs feed one output Linear.

    Dropout stands before the output Linear too, and no activation after it. There is no direct
    path from the features to the output.

    Args:
        in_features: Number of features D.
        num_classes: Number of logits C.
        width: See `SpinalStack`, as for all that follow.
        layers: Number of layers, n.
        splits: Number of slices.
        dropout: Probability before every Linear.
        norm: Batch norm in every layer.
        activation: A name in `ACTIVATIONS`.
        shared: Layers 2..n use one set of weights.
        order: Which layer's weights each step uses.
        output_dropout: Probability before the output Linear; None is that of the layers.

    Raises:
        ValueError: as `SpinalStack`.
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
        order: Sequence[int] = (),
        output_dropout: float | None = None,
    ) -> None:
        check_counts(num_classes=num_classes)
        before = dropout if output_dropout is None else output_dropout
        check_probability("output_dropout", before)
        super().__init__(
            in_features,
            width=width,
            layers=layers,
            splits=splits,
            dropout=dropout,
            norm=norm,
            activation=activation,
            shared=shared,
            order=order,
        )
        self.output = nn.Sequential(*make_dropout(before), nn.Linear(layers * width, num_classes))

    def forward(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Features ``[N, D]`` to logits ``[N, C]``.

        Args:
            features: ``[N, D]``.
            pre_logits: Stop before the output layer and return the outputs of all layers,
                ``[N, layers * width]``: the head as a reduction of dimensions.
        """
        outputs = super().forward(features)
        if pre_logits:
            return outputs
        logits: Tensor = self.output(outputs)
        return logits

    def add_layers(self, layers: int = 1) -> None:
        """Add layers without changing the function: the output reads them with weight zero.

        The new layers go on through the slices where the last one stopped. All parameters stay
        as they are but the output weight, which is replaced by a wider one: give an optimizer
        that holds the old one the new parameters. In training mode dropout draws other masks.

        Raises:
            ValueError: for fewer layers than 1.
        """
        check_layers(layers)
        linear = self.output[-1]
        assert isinstance(linear, nn.Linear)
        for _ in range(layers):
            self._append()
        self.layers.to(linear.weight.device, linear.weight.dtype).train(self.training)
        self.output[-1] = pad_linear_inputs(linear, layers * self.width)
