"""The Spinal stack in the place of a hidden Linear."""

from torch import Tensor

from spinal_repro.models.heads.common import MAX_LAYERS, check_counts, check_layers
from spinal_repro.models.heads.spinal import SpinalStack


class SpinalHidden(SpinalStack):
    """A Spinal hidden layer: takes the place of a Linear, and of the activation behind it.

    The outputs of all layers, side by side, are its output, so that a layer has
    ``out_features / layers`` units. Like a Linear it keeps leading dimensions; it contains its
    activations already.

    Args:
        in_features: Number of inputs D.
        out_features: Number of outputs, divisible by ``layers``.
        layers: See `SpinalStack`, as for all that follow.
        splits: Number of slices.
        dropout: Probability before every Linear.
        norm: Batch norm in every layer.
        activation: A name in `ACTIVATIONS`.
        shared: Layers 2..n use one set of weights.

    Raises:
        ValueError: where ``layers`` does not divide ``out_features``, and as `SpinalStack`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        layers: int = 4,
        splits: int = 2,
        dropout: float = 0.0,
        norm: bool = False,
        activation: str = "relu",
        shared: bool = False,
    ) -> None:
        check_counts(out_features=out_features)
        check_layers(layers)
        if out_features % layers:
            fits = [n for n in range(1, min(out_features, MAX_LAYERS) + 1) if out_features % n == 0]
            near = sorted(sorted(fits, key=lambda n: abs(n - layers))[:2])
            raise ValueError(
                f"{layers} layers cannot share {out_features} outputs evenly; "
                f"use layers={' or layers='.join(map(str, near))}"
            )
        super().__init__(
            in_features,
            width=out_features // layers,
            layers=layers,
            splits=splits,
            dropout=dropout,
            norm=norm,
            activation=activation,
            shared=shared,
        )
        self.out_features = out_features

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[..., D]`` to ``[..., out_features]``."""
        outputs = super().forward(features.reshape(-1, self.in_features))
        return outputs.reshape(*features.shape[:-1], self.out_features)
