"""The fully connected head."""

from collections.abc import Sequence

from torch import Tensor, nn

from spinal_repro.models.heads.common import (
    HEADS,
    check_counts,
    check_probabilities,
    make_activation,
    make_dropout,
    make_layer,
)


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
