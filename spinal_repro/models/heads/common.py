"""The registry of heads, the parts that they share, and the fully connected head."""

from collections.abc import Sequence

from torch import Tensor, nn

from spinal_repro.errors import UserError, check_known
from spinal_repro.registry import Registry

HEADS: Registry[nn.Module] = Registry("head")

PRETRAINED = "pretrained"  # the name of the head that is a network's own classifier

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


@HEADS.register(PRETRAINED)
def refuse_pretrained(in_features: int, num_classes: int) -> nn.Module:
    """Refuse a backbone without a pretrained classifier; `build_model` takes one that exists."""
    raise UserError(
        "head=pretrained keeps the classifier that a network's weights were published with: choose "
        "a network of torchvision or timm that has one, and its weights by model.pretrained=..."
    )


def make_activation(name: str) -> nn.Module:
    """Build an activation by its name in `ACTIVATIONS`."""
    check_known("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation of torch.nn without parameters; Identity is none."""
    return type(module).__module__ == nn.ReLU.__module__ and not list(module.parameters())


def check_counts(**counts: int) -> None:
    """Refuse counts below 1."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")


def make_layer(
    in_features: int, out_features: int, dropout: float, norm: bool, activation: str
) -> nn.Sequential:
    """Build one hidden layer: Dropout, Linear, BatchNorm1d, activation (recipes 1.2)."""
    parts = [*make_dropout(dropout), nn.Linear(in_features, out_features)]
    if norm:
        parts.append(nn.BatchNorm1d(out_features))
    return nn.Sequential(*parts, make_activation(activation))


def make_dropout(p: float) -> list[nn.Module]:
    """Build a Dropout; none for p = 0, so that no random numbers are drawn."""
    if not 0 <= p < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {p}")
    return [nn.Dropout(p)] if p else []


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
        check_counts(hidden=min(hidden, default=1))
        before, widths = list(dropout) or [0.0] * (len(hidden) + 1), [in_features, *hidden]
        if len(before) != len(widths):
            needs = f"{len(widths)} probabilities, one before each Linear, or none"
            raise ValueError(f"dropout needs {needs}; got {list(dropout)}")
        make_activation(activation)  # refuses an unknown name without hidden layers too
        layers: list[nn.Module] = []
        for p, width_in, width in zip(before, widths, hidden, strict=False):
            layers += make_layer(width_in, width, p, norm, activation)
        layers += [*make_dropout(before[-1]), nn.Linear(widths[-1], num_classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)
