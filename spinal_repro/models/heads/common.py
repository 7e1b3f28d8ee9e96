"""What all heads share: the registry, activations, checks of arguments."""

import torch
from torch import nn

from spinal_repro.errors import unknown
from spinal_repro.registry import Registry

MAX_LAYERS = 1000
HEADS: Registry[nn.Module] = Registry("head")

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def make_activation(name: str) -> nn.Module:
    """The activation of a name.

    Raises:
        UserError: for a name that is not in `ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def check_counts(**counts: int) -> None:
    """Refuse counts below 1."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")


def check_layers(layers: int, least: int = 1) -> None:
    """Refuse numbers of layers that are too small, or that nobody waits for."""
    if not least <= layers <= MAX_LAYERS:
        raise ValueError(f"layers must lie between {least} and {MAX_LAYERS}, got {layers}")


def check_probability(name: str, value: float) -> None:
    """Refuse what is no dropout probability."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value}")


def make_layer(
    in_features: int, out_features: int, dropout: float, norm: bool, activation: str
) -> nn.Sequential:
    """One hidden layer: Dropout, Linear, BatchNorm1d (if ``norm``), activation (recipes 1.2)."""
    parts = [*make_dropout(dropout), nn.Linear(in_features, out_features)]
    if norm:
        parts.append(nn.BatchNorm1d(out_features))
    return nn.Sequential(*parts, make_activation(activation))


def make_dropout(p: float) -> list[nn.Module]:
    """No module for p = 0, so that no random number is drawn for it."""
    return [nn.Dropout(p)] if p > 0 else []


def pad_linear_inputs(linear: nn.Linear, extra: int) -> nn.Linear:
    """A copy of a Linear that reads ``extra`` more inputs, at the end, with weight zero.

    It computes what the old one did, whatever the new inputs are. The bias stays the same
    parameter.
    """
    weight = linear.weight
    wider = nn.utils.skip_init(
        nn.Linear,
        linear.in_features + extra,
        linear.out_features,
        bias=linear.bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        wider.weight[:, : linear.in_features] = weight
        wider.weight[:, linear.in_features :] = 0
    wider.weight.requires_grad_(weight.requires_grad)
    wider.bias = linear.bias
    return wider.train(linear.training)
