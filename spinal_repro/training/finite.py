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
    """

    def __init__(self, what: str, epoch: int, step: int, steps: int, images: Sequence[int]) -> None:
        named = ", ".join(map(str, images[:SHOWN])) + (", ..." if len(images) > SHOWN else "")
        super().__init__(
            f"{what} at step {step} of {steps} in epoch {epoch} (training images {named}); {ADVICE}"
        )
        self.epoch, self.step, self.images = epoch, step, list(images)


Images = Callable[[int], Sequence[int]]


def check_losses(losses: Tensor, epoch: int, images: Images) -> None:
    """Refuse losses that are not finite. Waits for the device.

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
        raise NonFiniteLossError(what, epoch, step, len(losses), images(step))


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
