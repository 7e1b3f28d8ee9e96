"""Optimizers and the learning-rate rules of the recipes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from spinal_repro.config.schema import RecipeConfig
from spinal_repro.errors import UserError, unknown
from spinal_repro.registry import Registry
from spinal_repro.seeds import stream_seed
from spinal_repro.training.compat import SGD, Adam


def build_optimizer(recipe: RecipeConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Build the recipe's optimizer; betas, epsilon and dampening are PyTorch's defaults."""
    weights = [p for p in parameters if p.requires_grad]
    fused = all(p.device.type in ("cpu", "cuda") for p in weights)
    options: Any = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": fused}
    if recipe.optimizer == "sgd":
        return SGD(weights, momentum=recipe.momentum, **options)
    if recipe.optimizer != "adam":
        raise unknown("optimizer", recipe.optimizer, ("sgd", "adam"))
    if recipe.momentum:
        raise UserError("recipe.momentum is an option of sgd; use recipe.momentum=0 with adam")
    return Adam(weights, **options)


@dataclass(frozen=True)
class EpochResult:
    """Input of a learning-rate rule after an epoch; accuracies are in [0, 1]."""

    epoch: int
    accuracy: float  # on the selecting split
    best: float  # highest accuracy of earlier epochs; 0 for the first
    lr: float  # of the epoch
    base_lr: float  # of the recipe, or of its stage
    seed: int
    stage_epoch: int = 0  # from 1 in each stage

    def improved(self, tie_is_better: bool) -> bool:
        """Whether the accuracy is above the best one, or equals it and ``tie_is_better``."""
        return self.accuracy > self.best or (tie_is_better and self.accuracy == self.best)

    def draw(self, power: float) -> float:
        """Draw ``base_lr * U**power``, U uniform in [0, 1), from the run's stream for the epoch."""
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "lr", self.epoch))
        u = torch.rand((), generator=generator, dtype=torch.float64).item()
        return float(self.base_lr * u**power)


class LrRule(ABC):
    """Chooses the learning rate of the next epoch."""

    @abstractmethod
    def next_lr(self, result: EpochResult) -> float:
        """Learning rate of the epoch after ``result.epoch``."""

    def restarts(self, result: EpochResult) -> bool:
        """Whether the state of the optimizer is reset before the next epoch."""
        return False


LR_RULES: Registry[LrRule] = Registry("learning-rate rule")


@LR_RULES.register("constant")
class Constant(LrRule):
    """Keeps the learning rate."""

    def next_lr(self, result: EpochResult) -> float:
        return result.lr


@LR_RULES.register("redraw")
class Redraw(LrRule):
    """After an epoch without improvement draws ``base * U**power``, U uniform in [0, 1).

    The base never changes. The original never seeds the generator of U (Q7); here it is a stream
    of the run's seed.

    Args:
        tie_is_better: Whether an accuracy equal to the best counts as an improvement.
    """

    def __init__(self, *, power: float = 3.0, tie_is_better: bool = False) -> None:
        if power <= 0:
            raise ValueError(f"power must be above 0, got {power}")
        self.power, self.tie_is_better = power, tie_is_better

    def next_lr(self, result: EpochResult) -> float:
        return result.lr if result.improved(self.tie_is_better) else result.draw(self.power)


@LR_RULES.register("divide")
class Divide(LrRule):
    """Divides the rate after each epoch without improvement.

    The rule of the CIFAR-100 script, used for both heads of the CIFAR-10 pair as well (Q8).
    """

    def __init__(self, *, factor: float = 3.0, tie_is_better: bool = True) -> None:
        _check_factor(factor)
        self.factor, self.tie_is_better = factor, tie_is_better

    def next_lr(self, result: EpochResult) -> float:
        return result.lr if result.improved(self.tie_is_better) else result.lr / self.factor


@LR_RULES.register("divide_at")
class DivideAt(LrRule):
    """Divides the rate after given epochs, whatever the accuracy.

    With ``epochs=[2], every_from=22`` this is ``CNN_dropout_CIFAR10.py`` as committed (Q8):
    learning has stopped at epoch 30 of 160.

    Args:
        epochs: Epochs, from 1, after which the rate is divided.
        every_from: Also divide after this epoch and every later one; None: never.
    """

    def __init__(
        self, *, factor: float = 3.0, epochs: Sequence[int] = (), every_from: int | None = None
    ) -> None:
        _check_factor(factor)
        self.factor, self.epochs, self.every_from = factor, tuple(epochs), every_from

    def next_lr(self, result: EpochResult) -> float:
        late = self.every_from is not None and result.epoch >= self.every_from
        return result.lr / self.factor if late or result.epoch in self.epochs else result.lr


@LR_RULES.register("step")
class Step(LrRule):
    """``StepLR``: multiplies the rate by a factor every ``step`` epochs of a stage."""

    def __init__(self, *, step: int = 7, factor: float = 0.1) -> None:
        if step < 1 or not 0 < factor < 1:
            raise ValueError(f"step ({step}) must be 1 or more and factor ({factor}) in (0, 1)")
        self.step, self.factor = step, factor

    def next_lr(self, result: EpochResult) -> float:
        return float(result.base_lr * self.factor ** (result.stage_epoch // self.step))


@LR_RULES.register("redraw_late")
class RedrawLate(LrRule):
    """Constant at first, then ``factor * base * U**power`` with a new optimizer every epoch.

    As in ``Arch2_MNIST.py`` and ``Arch2_Fashion_MNIST.py`` (Q10).

    Args:
        start: Last epoch that is followed by the same rate; 100 in the MNIST script.
        factor: Largest rate as a multiple of the base.
    """

    def __init__(self, *, start: int, factor: float = 5.0, power: float = 3.0) -> None:
        if start < 0 or factor <= 0 or power <= 0:
            raise ValueError("start must be 0 or more, factor and power above 0")
        self.start, self.factor, self.power = start, factor, power

    def next_lr(self, result: EpochResult) -> float:
        return self.factor * result.draw(self.power) if self.restarts(result) else result.lr

    def restarts(self, result: EpochResult) -> bool:
        return result.epoch > self.start


def _check_factor(factor: float) -> None:
    if factor <= 1:
        raise ValueError(f"factor must be above 1, got {factor}")
