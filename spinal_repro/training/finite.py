"""Looking for numbers that are none: in the losses of an epoch, and in what is saved."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spinal_repro.errors import UserError

FAILURE = "failure.json"
SHOWN = 8  # images named in a message; the file has all
ADVICE = "a smaller recipe.lr or runtime.precision=fp32 may help"


class NonFiniteLossError(UserError):
    """The loss, a gradient or a weight became infinite or not a number.

    Attributes:
        epoch: From 1.
        step: From 1.
        images: The batch's images, as numbers in the published part they are from.
        before: Those of the step before, where its gradient may be to blame; else empty.
    """

    def __init__(
        self,
        what: str,
        epoch: int,
        step: int,
        steps: int,
        images: Sequence[int],
        before: Sequence[int] = (),
    ) -> None:
        blame = f", or already in the gradient of step {step - 1} ({_named(before)})"
        super().__init__(
            f"{what} at step {step} of {steps} in epoch {epoch} ({_named(images)})"
            f"{blame if before else ''}; {ADVICE}"
        )
        self.epoch, self.step, self.images, self.before = epoch, step, list(images), list(before)


def _named(images: Sequence[int]) -> str:
    """The first few of them."""
    return f"training images {', '.join(map(str, images[:SHOWN]))}" + (
        ", ..." if len(images) > SHOWN else ""
    )


Images = Callable[[int], Sequence[int]]


def check_losses(losses: Tensor, epoch: int, images: Images) -> None:
    """Refuse losses that are not finite. Waits for the device.

    A gradient that is not finite spoils the weights, and so shows in the loss of the next step:
    looking at gradients in every step would cost all runs what a replay costs those that fail.

    Args:
        losses: One a step; 0 for those to come.
        epoch: For the message.
        images: The images of a step, which counts from 1.

    Raises:
        NonFiniteLossError: naming the first such step.
    """
    bad = ~torch.isfinite(losses)
    if bad.any():
        step = int(bad.int().argmax()) + 1
        what = f"the loss is {losses[step - 1].item()}"
        before = images(step - 1) if step > 1 else ()
        raise NonFiniteLossError(what, epoch, step, len(losses), images(step), before)


def check_weights(
    model: nn.Module, optimizer: Optimizer, epoch: int, step: int, steps: int, images: Images
) -> None:
    """Refuse weights, buffers and optimizer state that are not finite: none are ever saved.

    A gradient that is not finite shows in the next step's loss, save after the last step.

    Raises:
        NonFiniteLossError: naming one of them.
    """
    found = model.state_dict()
    for number, state in enumerate(optimizer.state.values()):
        found |= {f"optimizer {key} {number}": value for key, value in state.items()}
    floating = {
        name: value
        for name, value in found.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel()
    }
    device = next((value.device for value in floating.values()), torch.device("cpu"))
    # one wait for all: the largest magnitude of a tensor with NaN is NaN
    finite = [torch.isfinite(value).all().to(device) for value in floating.values()]
    if finite and not torch.stack(finite).all():
        name = next(n for n, good in zip(floating, finite, strict=True) if not good)
        raise NonFiniteLossError(f"{name} is not finite", epoch, step, steps, images(step))
