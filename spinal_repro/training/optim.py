"""Optimizers and the learning-rate rules of the recipes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from spinal_repro.config.schema import RecipeConfig
from spinal_repro.errors import UserError, unknown
from spinal_repro.registry import Registry
from spinal_repro.seeds import stream_seed
from spinal_repro.training.compat import SGD, Adam


def build_optimizer(recipe: RecipeConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The recipe's optimizer; betas, epsilon, dampening as PyTorch has them.

    Raises:
        UserError: for an unknown optimizer, or momentum given to Adam.
    """
    weights = [p for p in parameters if p.requires_grad]
    fused = all(p.device.type in ("cpu", "cuda") for p in weights)
    if recipe.optimizer == "sgd":
        return SGD(
            weights, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=fused
        )
    if recipe.optimizer == "adam":
        if recipe.momentum:
            raise UserError("recipe.momentum belongs to sgd; set it to 0 for adam")
        return Adam(weights, recipe.lr, weight_decay=recipe.weight_decay, fused=fused)
    raise unknown("optimizer", recipe.optimizer, ("sgd", "adam"))


@dataclass(frozen=True)
class EpochResult:
    """Input of a learning-rate rule after an epoch.

    Attributes:
        accuracy: On the split that steers, in [0, 1].
        best: Highest accuracy of the epochs before; 0 before the first.
        lr: Learning rate of the epoch.
        base_lr: The learning rate of the recipe, or of the stage.
        stage_epoch: The epoch counted from the start of its stage, from 1.
    """

    epoch: int
    accuracy: float
    best: float
    lr: float
    base_lr: float
    seed: int
    stage_epoch: int = 0


class LrRule(ABC):
    """Gives the next epoch's learning rate."""

    @abstractmethod
    def next_lr(self, result: EpochResult) -> float:
        """Learning rate of the epoch after ``result.epoch``."""

    def restarts(self, result: EpochResult) -> bool:
        """Whether the optimizer forgets its momentum before the next epoch."""
        return False


LR_RULES: Registry[LrRule] = Registry("learning-rate rule")


@LR_RULES.register("constant")
class Constant(LrRule):
    """The learning rate stays."""

    def next_lr(self, result: EpochResult) -> float:
        """The same again."""
        return result.lr


@LR_RULES.register("redraw")
class Redraw(LrRule):
    """After an epoch without improvement the rate becomes ``base * U**power``, U uniform in [0, 1).

    The base never changes. The original never seeds the generator of U (Q7); here it is a stream
    of the run's seed.

    Args:
        power: Exponent of U.
        tie_is_better: Whether an accuracy equal to the best counts as an improvement.
    """

    def __init__(self, *, power: float = 3.0, tie_is_better: bool = False) -> None:
        if power <= 0:
            raise ValueError(f"power must be above 0, got {power}")
        self.power, self.tie_is_better = power, tie_is_better

    def next_lr(self, result: EpochResult) -> float:
        """The rate in use after an improvement, a new draw otherwise."""
        better = result.accuracy > result.best
        if better or (self.tie_is_better and result.accuracy == result.best):
            return result.lr
        return _draw(result, self.power)


@LR_RULES.register("divide")
class Divide(LrRule):
    """After an epoch that is worse than the best so far the rate is divided, cumulatively.

    The rule of the CIFAR-100 script, used for both heads of the CIFAR-10 pair as well (Q8).

    Args:
        factor: What the rate is divided by.
        tie_is_better: Whether an accuracy equal to the best counts as an improvement.
    """

    def __init__(self, *, factor: float = 3.0, tie_is_better: bool = True) -> None:
        _check_factor(factor)
        self.factor, self.tie_is_better = factor, tie_is_better

    def next_lr(self, result: EpochResult) -> float:
        """The rate in use after an improvement, a smaller one otherwise."""
        better = result.accuracy > result.best
        if better or (self.tie_is_better and result.accuracy == result.best):
            return result.lr
        return result.lr / self.factor


@LR_RULES.register("divide_at")
class DivideAt(LrRule):
    """The rate is divided after given epochs, whatever the accuracy.

    With ``epochs=[2], every_from=22`` this is what ``CNN_dropout_CIFAR10.py`` does as committed
    (Q8): learning has stopped at epoch 30 of 160.

    Args:
        factor: What the rate is divided by.
        epochs: Epochs, from 1, after which it is divided.
        every_from: It is also divided after this epoch and after every later one.
    """

    def __init__(
        self, *, factor: float = 3.0, epochs: Sequence[int] = (), every_from: int | None = None
    ) -> None:
        _check_factor(factor)
        self.factor, self.epochs, self.every_from = factor, tuple(epochs), every_from

    def next_lr(self, result: EpochResult) -> float:
        """The rate in use, divided where its epoch says so."""
        late = self.every_from is not None and result.epoch >= self.every_from
        return result.lr / self.factor if late or result.epoch in self.epochs else result.lr


@LR_RULES.register("step")
class Step(LrRule):
    """``StepLR``: the rate falls by a factor every so many epochs of a stage.

    Args:
        step: Epochs between two falls.
        factor: What the rate is multiplied by.
    """

    def __init__(self, *, step: int = 7, factor: float = 0.1) -> None:
        if step < 1 or not 0 < factor < 1:
            raise ValueError(f"step ({step}) must be 1 or more and factor ({factor}) in (0, 1)")
        self.step, self.factor = step, factor

    def next_lr(self, result: EpochResult) -> float:
        """The stage's rate, lowered once for each ``step`` epochs of it."""
        return float(result.base_lr * self.factor ** (result.stage_epoch // self.step))


@LR_RULES.register("redraw_late")
class RedrawLate(LrRule):
    """Constant at first, then ``factor * base * U**power`` with a new optimizer every epoch.

    As in ``Arch2_MNIST.py`` and ``Arch2_Fashion_MNIST.py`` (Q10).

    Args:
        start: The last epoch after which the rate stays; 100 in the MNIST script.
        factor: Largest rate as a multiple of the base.
        power: Exponent of U, uniform in [0, 1).
    """

    def __init__(self, *, start: int, factor: float = 5.0, power: float = 3.0) -> None:
        if start < 0 or factor <= 0 or power <= 0:
            raise ValueError("start must not be negative, factor and power must be above 0")
        self.start, self.factor, self.power = start, factor, power

    def next_lr(self, result: EpochResult) -> float:
        """The base up to epoch ``start + 1``, then a draw."""
        return self.factor * _draw(result, self.power) if self.restarts(result) else result.lr

    def restarts(self, result: EpochResult) -> bool:
        """A new optimizer with every draw."""
        return result.epoch > self.start


def _check_factor(factor: float) -> None:
    if factor <= 1:
        raise ValueError(f"factor must be above 1, got {factor}")


def _draw(result: EpochResult, power: float) -> float:
    """``base * U**power``, U from the run's stream for this epoch."""
    generator = torch.Generator().manual_seed(stream_seed(result.seed, "lr", result.epoch))
    u = torch.rand((), generator=generator, dtype=torch.float64).item()
    return float(result.base_lr * u**power)
