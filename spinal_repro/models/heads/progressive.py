"""The head of ProgressiveSpinalNet (arXiv 2103.11373)."""

import torch
from torch import Tensor, nn

from spinal_repro.models.heads.common import (
    HEADS,
    check_counts,
    check_probabilities,
    make_dropout,
    make_layer,
)


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
        check_probabilities(dropout=dropout, layer_dropout=layer_dropout)
        self.in_features = in_features
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
