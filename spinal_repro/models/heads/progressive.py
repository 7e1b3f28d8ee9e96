"""The head of ProgressiveSpinalNet (arXiv 2103.11373)."""

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


@HEADS.register("progressive")
class ProgressiveSpinalHead(nn.Module):
    """Progressive Spinal head: every layer sees all features and all earlier outputs.

    Layer 1 reads the features x, layer k > 1 reads ``[D(x), z1, ..., z(k-1)]`` and the output
    Linear ``[D(x), z1, ..., zn]``, where D is one dropout of the features, drawn once a forward
    pass and used by them all (recipes 7.1). So there is a direct linear path from the features
    to the logits. A layer is Linear, BatchNorm1d (if ``norm``), activation, with a Dropout of
    its own before the Linear if ``layer_dropout`` is given.

    Args:
        in_features: Number of features D.
        num_classes: Number of logits C.
        width: Outputs of one layer, w.
        layers: Number of layers, n; the paper has 4.
        dropout: Probability of the one dropout of the features.
        layer_dropout: Probability before every Linear, the output one included; 0.5 in the
            QMNIST script, which has ``norm`` as well.
        norm: Batch norm between each layer's Linear and its activation.
        activation: A name in `ACTIVATIONS`.

    Raises:
        ValueError: for counts below 1 and probabilities outside [0, 1).
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
        check_counts(in_features=in_features, num_classes=num_classes, width=width)
        check_layers(layers)
        check_probability("dropout", dropout)
        check_probability("layer_dropout", layer_dropout)
        self.in_features, self.width = in_features, width
        self._style = (layer_dropout, norm, activation)
        self.dropout = nn.Sequential(*make_dropout(dropout))
        self.layers = nn.ModuleList()
        for _ in range(layers):
            self._append()
        self.output = nn.Sequential(
            *make_dropout(layer_dropout), nn.Linear(in_features + layers * width, num_classes)
        )

    def _append(self) -> None:
        seen = self.in_features + len(self.layers) * self.width
        self.layers.append(make_layer(seen, self.width, *self._style))
        self.num_activations = len(self.layers) * self.width

    def forward(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Features ``[N, D]`` to logits ``[N, C]``.

        Args:
            features: ``[N, D]``.
            pre_logits: Return the outputs of all layers, ``[N, layers * width]``, instead. The
                features themselves, which the output layer reads too, are not among them.
        """
        seen = [self.dropout(features)]
        for k, layer in enumerate(self.layers):
            seen.append(layer(torch.cat(seen, dim=1) if k else features))
        if pre_logits:
            return torch.cat(seen[1:], dim=1)
        logits: Tensor = self.output(torch.cat(seen, dim=1))
        return logits

    def add_layers(self, layers: int = 1) -> None:
        """Add layers without changing the function; see `SpinalHead.add_layers`.

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
