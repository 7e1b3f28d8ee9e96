"""Parts shared by all heads: registry, activations, hidden layer, argument checks."""

from torch import nn

from spinal_repro.errors import UserError, unknown
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
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation of torch.nn without parameters; Identity is none."""
    return type(module).__module__ == nn.ReLU.__module__ and not list(module.parameters())


def check_counts(**counts: int) -> None:
    """Refuse counts below 1."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")


def check_probabilities(**probabilities: float) -> None:
    """Refuse dropout probabilities outside [0, 1)."""
    for name, value in probabilities.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, got {value}")


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
    return [nn.Dropout(p)] if p > 0 else []
