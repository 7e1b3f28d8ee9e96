"""The written-out gradients are those of autograd, whatever the net."""

import pytest
import torch

from spinal_repro.regression import make_net
from spinal_repro.stacked import StackedNets

KINDS = [("normal", "distinct"), ("spinal", "distinct"), ("spinal", "reused")]


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def joined(nets: StackedNets, i: int, shapes: list[torch.Size]) -> list[torch.Tensor]:
    """The gradients of network i in the order and shapes of its module's parameters."""
    rest = [parameter.grad[i] for parameter in nets.parameters]
    found = []
    for shape in shapes:
        size = shape.numel()
        columns = [rest.pop(0)]
        while sum(part.numel() for part in columns) < size:
            columns.append(rest.pop(0))
        whole = torch.cat(columns)
        found.append(whole if whole.shape == shape else whole.mT.reshape(shape))
    assert not rest
    return found


@pytest.mark.parametrize(("net", "layers"), KINDS)
def test_predictions_and_gradients_are_those_of_each_module_alone(net, layers, double):
    torch.manual_seed(0)
    modules = [make_net(net, layers) for _ in range(3)]
    nets = StackedNets(modules)
    for _ in range(2):  # gradients do not pile up from one call to the next
        x, y = torch.randn(3, 17, 8), torch.randn(3, 17)
        errors = nets.backward(x, y)
    for i, module in enumerate(modules):
        predicted = module(x[i]).squeeze(-1)
        torch.testing.assert_close(nets.predict(x)[i], predicted.detach())
        error = (predicted - y[i]).square().mean()
        torch.testing.assert_close(errors[i], error.detach())
        parameters = list(module.parameters())
        wanted = torch.autograd.grad(error, parameters, allow_unused=layers == "reused")
        found = joined(nets, i, [parameter.shape for parameter in parameters])
        dead = 0
        for parameter, expected, gradient in zip(parameters, wanted, found, strict=True):
            dead += 0 if expected is not None else parameter.numel()
            expected = torch.zeros_like(parameter) if expected is None else expected
            torch.testing.assert_close(gradient, expected)
        assert dead == (5500 if layers == "reused" else 0)


def test_the_modules_are_left_as_they_were(double):
    module = make_net("spinal")
    before = [parameter.detach().clone() for parameter in module.parameters()]
    nets = StackedNets([module])
    nets.backward(torch.randn(1, 4, 8), torch.randn(1, 4))
    torch.optim.SGD(nets.parameters, lr=1.0).step()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in module.parameters())
