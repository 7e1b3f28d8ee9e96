"""Spinal heads, the Spinal hidden layer, and the head of ``MNIST/Arch2_*.py``."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spinal_repro.models.heads.common import HEADS, FCHead, check_counts, make_dropout, make_layer


@HEADS.register("spinal")
class SpinalHead(nn.Module):
    """Spinal head of every variant of the paper (recipes 1.1, recipes 5).

    With slice length ``s = round(D / splits)``, layer k reads the k-th consecutive slice of the
    features, starting again from the front when they are used up, followed by the output of
    layer k-1. Each layer is Dropout, Linear, BatchNorm1d (if ``norm``), activation. The output
    Linear reads the outputs of all layers, with Dropout before it and no activation after it.
    There is no direct path from the features to the output.

    Args:
        num_classes: Number of logits; 0 for no output Linear, as in timm: the head then returns
            the outputs of all layers, ``[N, layers * width]``.
        width: Outputs of one layer.
        splits: Number of slices of the features; 2 gives the two halves of the paper.
        dropout: Dropout probability before every Linear.
        activation: ``identity`` makes the layers an affine map (Q14).
        shared: Layers 2..n share one set of weights (SpinalNet SW; recipes 6).
        order: The layer, from 1, whose weights each step uses; empty for 1..n. The regression
            script computes ``(1, 2, 3, 4, 3, 4)`` (Q2): the weights of layers 5 and 6 exist but
            are never used.
        output_dropout: Dropout probability before the output Linear; None: as in the layers.
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
        super().__init__()
        check_counts(in_features=in_features, width=width, layers=layers, splits=splits)
        _check_order(order, layers, shared)
        self.in_features = in_features
        self.slice_size = _slice_size(in_features, layers, splits)
        own = min(layers, 2) if shared else layers
        self.layers = nn.ModuleList(
            make_layer(self.slice_size + (width if k else 0), width, dropout, norm, activation)
            for k in range(own)
        )
        # for each step, the index of its layer
        self.order = [number - 1 for number in order] or [min(k, own - 1) for k in range(layers)]
        self.output = nn.Sequential()
        if num_classes:
            check_counts(num_classes=num_classes)
            before = make_dropout(dropout if output_dropout is None else output_dropout)
            self.output.extend([*before, nn.Linear(layers * width, num_classes)])

    def forward(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """With ``pre_logits`` return the outputs of all layers, ``[N, layers * width]``."""
        size = self.slice_size
        repeats = -(-len(self.order) * size // self.in_features)
        tiled = features if repeats == 1 else features.repeat(1, repeats)
        outputs: list[Tensor] = []
        for k, index in enumerate(self.order):
            part = tiled[..., k * size : (k + 1) * size]
            layer = self.layers[index]
            outputs.append(layer(torch.cat([part, outputs[-1]], dim=1) if k else part))
        joined = torch.cat(outputs, dim=1)
        return joined if pre_logits else self.output(joined)


def _slice_size(in_features: int, layers: int, splits: int) -> int:
    """Length of a slice; refused where the original silently ignores inputs (recipes 5)."""
    size = round(in_features / splits)  # halves to even, as NumPy does in the original
    if size < 1:
        cut = f"splits={splits} cuts {in_features} features into empty slices"
        raise ValueError(f"{cut}; use splits={in_features} or fewer")
    if layers * size < in_features:
        unread = f"never reach the last {in_features - layers * size} of {in_features} features"
        fix = f"use layers={-(-in_features // size)} or more, or fewer splits than {splits}"
        raise ValueError(f"{layers} layers with slices of {size} {unread}; {fix}")
    return size


def _check_order(order: Sequence[int], layers: int, shared: bool) -> None:
    if order and shared:
        raise ValueError("shared=true already sets the order; give only one of shared and order")
    fits = all(2 <= number <= layers for number in order[1:])
    if order and not (len(order) == layers and order[0] == 1 and fits):
        needed = f"{layers} numbers, one for each layer: first 1, then from 2 to {layers}"
        raise ValueError(f"order needs {needed}; got {list(order)}")


class SpinalHidden(SpinalHead):
    """Spinal hidden layer: replaces a Linear and the activation after it.

    The outputs of all layers are concatenated, so each layer has ``out_features / layers``
    units. Like a Linear it keeps leading dimensions. Options are those of `SpinalHead`.
    """

    def __init__(
        self, in_features: int, out_features: int, *, layers: int = 4, **options: Any
    ) -> None:
        check_counts(out_features=out_features, layers=layers)
        if out_features % layers:
            raise ValueError(f"layers={layers} does not divide {out_features} outputs")
        super().__init__(in_features, 0, width=out_features // layers, layers=layers, **options)
        self.out_features = out_features

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        outputs = super().forward(features.reshape(-1, self.in_features))
        return outputs.reshape(*features.shape[:-1], self.out_features)


@HEADS.register("progressive")
class ProgressiveSpinalHead(nn.Module):
    """Progressive Spinal head: every layer reads all features and all earlier outputs.

    Layer 1 reads the features x, layer k > 1 reads ``[D(x), z1, ..., z(k-1)]`` and the output
    Linear ``[D(x), z1, ..., zn]``. D is one dropout of the features, drawn once per forward pass
    and shared by all of them (recipes 7.1), so a direct linear path leads from the features to
    the logits. A layer is Dropout (if ``layer_dropout``), Linear, BatchNorm1d (if ``norm``),
    activation.

    Args:
        dropout: Dropout probability of the features.
        layer_dropout: Dropout probability before every Linear, also that of the output; 0.5 in
            the QMNIST script, which also has ``norm``.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        width: int = 64,
        layers: int = 4,
        dropout: float = 0.2,
        layer_dropout: float = 0.0,
        norm: bool = False,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_counts(in_features=in_features, num_classes=num_classes, width=width, layers=layers)
        self.dropout = nn.Sequential(*make_dropout(dropout))
        self.layers = nn.ModuleList(
            make_layer(in_features + k * width, width, layer_dropout, norm, activation)
            for k in range(layers)
        )
        self.output = nn.Sequential(
            *make_dropout(layer_dropout), nn.Linear(in_features + layers * width, num_classes)
        )

    def forward(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """With ``pre_logits`` return the outputs of all layers, ``[N, layers * width]``."""
        read = [self.dropout(features)]
        for k, layer in enumerate(self.layers):
            read.append(layer(torch.cat(read, dim=1) if k else features))
        return torch.cat(read[1:], dim=1) if pre_logits else self.output(torch.cat(read, dim=1))


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
                f"taps must add up to the {in_features} features of the backbone (model=arch2), a "
                f"number of layers for each; got taps={list(taps)}, layers={list(layers)}"
            )
        self.taps, self.layers = list(taps), list(layers)
        self.stacks = nn.ModuleList(
            SpinalHead(tap, 0, width=width, layers=n)
            for tap, n in zip(taps, layers, strict=True)
            if n
        )
        self.output = FCHead(sum(layers) * width, num_classes, hidden=(hidden,))

    def forward(self, features: Tensor) -> Tensor:
        taps = features.split(self.taps, dim=1)
        parts = [tap for tap, n in zip(taps, self.layers, strict=True) if n]
        outputs = [stack(part) for stack, part in zip(self.stacks, parts, strict=True)]
        return self.output(torch.cat(outputs, dim=1))
