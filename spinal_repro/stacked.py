"""Many equal nets of the regression experiment side by side, their gradients written out.

Every tensor has a leading dimension M, one entry for each network, and every product is one
batched matrix product. Written out, with gradients that add up in buffers that stay, a step takes
two thirds of the time of autograd through ``torch.func.vmap`` over the same modules.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from spinal_repro.heads import SpinalHead

SLOPE = 0.01  # of LeakyReLU below zero


@dataclass(frozen=True)
class Weights:
    """The parameters of a hidden layer, whose outputs are LeakyReLU of all that it adds up.

    Attributes:
        inputs: Weights of the inputs it reads, ``[M, in, out]``; None where it reads none.
        previous: Weights of the outputs of the layer before, likewise.
        bias: ``[M, 1, out]``.
    """

    inputs: Tensor | None
    previous: Tensor | None
    bias: Tensor


class StackedNets:
    """Networks of one kind, each of them computed exactly as it would be alone.

    Attributes:
        parameters: What is trained; each tensor holds its gradient from the start.

    Args:
        nets: Networks as `regression.make_net` makes them, with their initial weights.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        self.parameters: list[Tensor] = []
        self._gradients: list[Tensor] = []
        states = zip(*(net.parameters() for net in nets), strict=True)
        stacked = [torch.stack(values).detach() for values in states]
        *hidden, (weight, bias) = zip(stacked[::2], stacked[1::2], strict=True)
        first = nets[0]
        if isinstance(first, SpinalHead):
            read = first.slice_size
            self._layers = [self._hidden(w, b, read) for w, b in hidden]
            halves = slice(read), slice(read, None)
            self._steps = [(self._layers[k], halves[i % 2]) for i, k in enumerate(first.order)]
            self._read_by_output = len(self._steps)
        else:
            sizes = [hidden[0][0].shape[2]] + [0] * (len(hidden) - 1)
            self._layers = [
                self._hidden(w, b, size) for (w, b), size in zip(hidden, sizes, strict=True)
            ]
            self._steps = [(layer, slice(None)) for layer in self._layers]
            self._read_by_output = 1
        self._output = self._parameter(weight), self._parameter(bias)  # [M, 1, in], [M, 1]

    def _parameter(self, value: Tensor) -> Tensor:
        value = value.contiguous()
        value.grad = torch.zeros_like(value)
        self.parameters.append(value)
        self._gradients.append(value.grad)
        return value

    def _hidden(self, weight: Tensor, bias: Tensor, read: int) -> Weights:
        """The weights ``[M, out, in]`` of a Linear whose first ``read`` columns are inputs."""
        inputs, previous = weight[..., :read].mT, weight[..., read:].mT
        return Weights(
            self._parameter(inputs) if inputs.numel() else None,
            self._parameter(previous) if previous.numel() else None,
            self._parameter(bias.unsqueeze(1)),
        )

    def _forward(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Outputs of every step ``[M, N, w]``, what the output layer reads, predictions."""
        outputs: list[Tensor] = []
        for layer, part in self._steps:
            total = layer.bias
            if layer.inputs is not None:
                total = torch.baddbmm(total, x[..., part], layer.inputs)
            if layer.previous is not None:
                total = torch.baddbmm(total, outputs[-1], layer.previous)
            outputs.append(functional.leaky_relu_(total, SLOPE))
        read = outputs[-self._read_by_output :]
        features = torch.cat(read, -1) if len(read) > 1 else read[0]
        weight, bias = self._output
        return outputs, features, (features * weight).sum(-1).add_(bias)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Inputs ``[M, N, 8]`` to outputs ``[M, N]``."""
        return self._forward(x)[2]

    @torch.no_grad()
    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Set the gradients of the mean square errors.

        Args:
            x: Inputs ``[M, N, 8]``.
            y: Targets ``[M, N]``.

        Returns:
            The errors, ``[M]``.
        """
        torch._foreach_zero_(self._gradients)
        outputs, features, predicted = self._forward(x)
        error = predicted.sub_(y)
        slope = (error * (2 / error.shape[1])).unsqueeze(-1)  # of the errors in the predictions
        weight, bias = self._output
        _add(bias, slope.sum(1))
        _add(weight, (features * slope).sum(1, keepdim=True))
        shares = weight.split(outputs[-1].shape[2], 2)  # a step's part of the output's weights
        down = torch.zeros_like(outputs[-1])  # gradient of a step's outputs
        for i in reversed(range(len(outputs))):
            layer, part = self._steps[i]
            own = i - len(outputs) + len(shares)
            if own >= 0:
                down.addcmul_(slope, shares[own])
            down = _below(down, outputs[i])
            _add(layer.bias, down.sum(1, keepdim=True))
            if layer.inputs is not None:
                _multiplied(layer.inputs, x[..., part], down)
            if layer.previous is not None:
                _multiplied(layer.previous, outputs[i - 1], down)
                down = torch.bmm(down, layer.previous.mT)
        return error.square_().mean(-1)


def _add(parameter: Tensor, gradient: Tensor) -> None:
    """Add to the gradient of a parameter."""
    assert parameter.grad is not None
    parameter.grad.add_(gradient)


def _multiplied(weight: Tensor, x: Tensor, down: Tensor) -> None:
    """Add the gradient of a weight that x was multiplied by."""
    assert weight.grad is not None
    weight.grad.baddbmm_(x.mT, down)


def _below(down: Tensor, output: Tensor) -> Tensor:
    """The gradient before a LeakyReLU, in place of that behind it."""
    backward = torch.ops.aten.leaky_relu_backward.grad_input
    changed: Tensor = backward(down, output, SLOPE, True, grad_input=down)
    return changed
