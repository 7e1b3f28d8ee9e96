"""A SpinalNet that equals a given single-hidden-layer network (docs/universal_approximation.md)."""

import pytest
import torch
from torch import Tensor, nn

from spinal_repro.models.heads import SpinalHead

SHAPES = [(8, 6, 2, 1), (8, 6, 2, 3), (12, 4, 4, 1), (12, 8, 3, 2), (5, 5, 1, 5)]


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def network(inputs, hidden, outputs, activation):
    return nn.Sequential(nn.Linear(inputs, hidden), activation(), nn.Linear(hidden, outputs))


@torch.no_grad()
def build(given: nn.Sequential, splits: int, sweeps: int, radius: float, step: float | None):
    """The construction: ``step`` is None for ReLU and the small slope for sigmoid."""
    first, last = given[0], given[2]
    width, size = first.out_features // sweeps, first.in_features // splits
    head = SpinalHead(
        first.in_features,
        last.out_features,
        width=width,
        layers=splits * sweeps,
        splits=splits,
        activation="relu" if step is None else "sigmoid",
    )
    output = head.output[-1]
    output.weight.zero_()
    output.bias.copy_(last.bias)
    for sweep in range(sweeps):
        units = slice(sweep * width, (sweep + 1) * width)
        weight, bias = first.weight[units], first.bias[units]
        bounds = weight.abs().view(width, splits, size).sum(2).cumsum(1) * radius
        for k in range(splits):
            at_last, at_first = k == splits - 1, k == 0
            linear = head.layers[sweep * splits + k][0]
            linear.weight.zero_()
            part, previous = linear.weight[:, :size], linear.weight[:, size:]
            part.copy_(weight[:, k * size : (k + 1) * size])
            linear.bias.copy_(bias if at_last else torch.zeros(width))
            scale = 1.0 if at_last or step is None else step
            part.mul_(scale)
            if not at_first:
                previous.copy_(torch.eye(width) * (1.0 if step is None else 4 * scale / step))
                linear.bias.sub_(bounds[:, k - 1] if step is None else 2 * scale / step)
            if step is None and not at_last:
                linear.bias.add_(bounds[:, k])
        column = (sweep * splits + splits - 1) * width
        output.weight[:, column : column + width] = last.weight[:, units]
    return head


@torch.no_grad()
def unbounded(given: nn.Sequential, splits: int) -> SpinalHead:
    """For ReLU, twice as wide, equal everywhere: sums pass as positive and negative part."""
    first, last = given[0], given[2]
    units, size = first.out_features, first.in_features // splits
    head = SpinalHead(
        first.in_features, last.out_features, width=2 * units, layers=splits, splits=splits
    )
    both = torch.cat([torch.eye(units), -torch.eye(units)])
    for k, layer in enumerate(head.layers):
        linear = layer[0]
        part = first.weight[:, k * size : (k + 1) * size]
        linear.weight.copy_(torch.cat([both @ part, both @ both.T], dim=1) if k else both @ part)
        linear.bias.copy_(both @ first.bias if k == splits - 1 else torch.zeros(2 * units))
    output = head.output[-1]
    output.weight.zero_()
    output.weight[:, (splits - 1) * 2 * units :][:, :units] = last.weight
    output.bias.copy_(last.bias)
    return head


def box(count: int, inputs: int, radius: float) -> Tensor:
    """Points of the box, corners among them, where the bounds are tight."""
    points = (2 * torch.rand(count, inputs) - 1) * radius
    return torch.cat([points, torch.randn(count, inputs).sign() * radius])


@pytest.mark.parametrize(("inputs", "hidden", "splits", "sweeps"), SHAPES)
def test_relu_network_is_equalled_on_a_box(inputs, hidden, splits, sweeps):
    given, x = network(inputs, hidden, 2, nn.ReLU), box(500, inputs, 3.0)
    head = build(given, splits, sweeps, 3.0, None)
    assert head.layers[splits - 1][0].out_features * sweeps == hidden
    assert given(x).std() > 0.05 and (given[0](x) < 0).any()  # not linear there
    torch.testing.assert_close(head(x), given(x), rtol=0, atol=1e-12)
    if splits > 1:
        outside = box(500, inputs, 300.0)
        assert (head(outside) - given(outside)).abs().max() > 0.1, "the box is not needed"


@pytest.mark.parametrize("splits", [1, 2, 4])
def test_relu_network_is_equalled_everywhere_with_twice_the_width(splits):
    given = network(8, 6, 2, nn.ReLU)
    x = torch.cat([box(500, 8, radius) for radius in (1.0, 1e3, 1e6)])
    torch.testing.assert_close(unbounded(given, splits)(x), given(x), rtol=1e-12, atol=1e-9)


def tolerance(given: nn.Sequential, splits: int, radius: float, step: float) -> float:
    """The bound of the document: (s - 1) step^2 B^3 |V| / 6, for 2 (s - 1) step^2 B^2 <= 3."""
    reach = radius * given[0].weight.abs().sum(1).max().item()
    assert 2 * (splits - 1) * step**2 * reach**2 <= 3
    norm = given[2].weight.abs().sum(1).max().item()
    return (splits - 1) * step**2 * reach**3 * norm / 6


@pytest.mark.parametrize(("inputs", "hidden", "splits", "sweeps"), SHAPES)
def test_sigmoid_network_is_approximated_within_the_stated_tolerance(
    inputs, hidden, splits, sweeps
):
    given, x = network(inputs, hidden, 2, nn.Sigmoid), box(500, inputs, 2.0)
    errors = []
    for step in (1e-1, 2e-2, 1e-2, 1e-4):
        head = build(given, splits, sweeps, 2.0, step)
        errors.append((head(x) - given(x)).abs().max().item())
        assert errors[-1] <= tolerance(given, splits, 2.0, step) + 1e-14 / step  # and rounding
    assert errors[-1] < 1e-7
    if splits > 1:
        assert errors[1] / errors[2] == pytest.approx(4, rel=0.05), "not the square of the step"
