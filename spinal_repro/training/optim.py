"""Optimizers and the learning-rate rules of the recipes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from spinal_repro.config import RecipeConfig
from spinal_repro.errors import UserError, unknown
from spinal_repro.registry import Registry
from spinal_repro.seeds import stream_seed


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
    """What a learning-rate rule may look at after an epoch.

    Attributes:
        epoch: The epoch just finished, from 1.
        accuracy: Accuracy in it on the split that steers.
        best: Highest accuracy of the epochs before; 0 before the first.
        lr: Learning rate used in it.
        base_lr: The recipe's learning rate.
        seed: The run's seed.
    """

    epoch: int
    accuracy: float
    best: float
    lr: float
    base_lr: float
    seed: int


class LrRule(ABC):
    """Gives the next epoch's learning rate."""

    @abstractmethod
    def next_lr(self, result: EpochResult) -> float:
        """Learning rate of the epoch after ``result.epoch``."""


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

    R3 and R5 of the recipes (1.4). The base never changes, so the rate never exceeds it. The
    original draws U from a generator that is never seeded (Q7); here it is a stream of the run's
    seed.

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
        generator = torch.Generator().manual_seed(stream_seed(result.seed, "lr", result.epoch))
        u = torch.rand((), generator=generator, dtype=torch.float64).item()
        return float(result.base_lr * u**self.power)
