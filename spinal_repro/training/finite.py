"""Looking for numbers that are none: in losses and evaluations, and in what is saved."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spinal_repro.data.loader import Batches
from spinal_repro.errors import UserError
from spinal_repro.training.evaluation import Evaluation

FAILURE = "failure.json"
SHOWN = 8  # images named in a message; the file has all
ADVICE = "a smaller recipe.lr or runtime.precision=fp32 may help"
KINDS = {"train": "training", "val": "validation", "test": "test"}  # of images, by part


class NonFiniteLossError(UserError):
    """The loss, a gradient or a weight became infinite or not a number.

    Attributes:
        what: What it was that did.
        epoch: From 1; of an evaluation, the one that its weights are from.
        step: From 1; of an evaluation, its batch.
        images: The batch's images, as numbers in the published part they are from.
        before: Those of the step before, where its gradient may be to blame; else empty.
        part: That the images are from: ``train``, ``val`` or ``test``.
        evaluation: Which one it was, in words; empty for training.
    """

    def __init__(
        self,
        what: str,
        epoch: int,
        step: int,
        steps: int,
        images: Sequence[int],
        before: Sequence[int] = (),
        part: str = "train",
        evaluation: str = "",
    ) -> None:
        blame = f", or already in the gradient of step {step - 1} ({_named(before, part)})"
        place = f"batch {step} of {steps} in" if evaluation else f"step {step} of {steps} in"
        super().__init__(
            f"{what} at {place} {evaluation or f'epoch {epoch}'} ({_named(images, part)})"
            f"{blame if before else ''}; {ADVICE}"
        )
        self.what, self.epoch, self.step, self.part = what, epoch, step, part
        self.images, self.before, self.evaluation = list(images), list(before), evaluation


def _named(images: Sequence[int], part: str) -> str:
    """The first few of them."""
    return f"{KINDS[part]} images {', '.join(map(str, images[:SHOWN]))}" + (
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


def check_evaluation(
    found: Evaluation, batches: Batches, part: str, epoch: int, evaluation: str
) -> None:
    """Refuse an evaluation whose loss is not finite: its accuracy must select nothing.

    A loss is not finite where any logit is NaN or +inf, or that of the right class -inf. One of
    another class that is -inf says "never this one", which is an answer, and no error in training.

    Args:
        found: The evaluation.
        batches: Of its split.
        part: Its name.
        epoch: That the weights are from.
        evaluation: Which one, in words.

    Raises:
        NonFiniteLossError: naming the batch with which the sum of the losses was none any more.
    """
    if found.spoiled is not None:
        start, stop = found.spoiled
        raise NonFiniteLossError(
            f"the loss is {found.loss}", epoch, start // batches.batch_size + 1, len(batches),
            batches.images_at(start, stop), part=part, evaluation=evaluation,
        )  # fmt: skip


def finite_weights(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Whether weights, buffers and optimizer state are finite. Does not wait for the device.

    A gradient that is not finite shows in the next step's loss; after the last step it shows here.

    Returns:
        A bool ``[]`` on the device for each tensor, by its name.
    """
    found = model.state_dict()
    for number, state in enumerate(optimizer.state.values()):
        found |= {f"optimizer {key} {number}": value for key, value in state.items()}
    return {
        name: torch.isfinite(value).all()
        for name, value in found.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel()
    }
