"""Optimizers and the learning-rate rules of the recipes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from inspect import unwrap
from typing import Any

import torch
from torch import nn, optim
from torch.optim import Optimizer

from spinal_repro.config.schema import RecipeConfig, limit
from spinal_repro.errors import UserError, unknown
from spinal_repro.registry import Registry
from spinal_repro.seeds import stream_seed


def _without_compiler(optimizer: type[Optimizer]) -> Any:
    """Derive an optimizer without the decorators for ``torch.compile``, private parts of PyTorch.

    They import ``torch._dynamo`` when the optimizer is built, which takes two seconds. No
    optimizer is compiled here; numerics and ``state_dict`` are the same.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: unwrap(getattr(optimizer, name)) for name in names}
    methods["step"] = torch.no_grad()(unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), methods)


SGD, Adam = _without_compiler(optim.SGD), _without_compiler(optim.Adam)


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
    """Input of a learning-rate rule after an epoch.

    Accuracies are in [0, 1], or values of ``protocol.select_metric``.
    """

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


LR_RULES: Registry["LrRule"] = Registry("learning-rate rule")


@LR_RULES.register("constant")
@dataclass(kw_only=True)
class LrRule:
    """Chooses the learning rate of the next epoch; this one keeps it."""

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            for word, bound in option.metadata.items():
                if not (value > bound if word == "above" else value < bound):
                    raise ValueError(f"{option.name} must be {word} {bound}, got {value}")

    def next_lr(self, result: EpochResult) -> float:
        """Learning rate of the epoch after ``result.epoch``."""
        return result.lr

    def restarts(self, result: EpochResult) -> bool:
        """Whether the state of the optimizer is reset before the next epoch."""
        return False


@LR_RULES.register("redraw")
@dataclass(kw_only=True)
class Redraw(LrRule):
    """After an epoch without improvement draws ``base * U**power``, U uniform in [0, 1).

    The base never changes. The original never seeds the generator of U (Q7); here it is a stream
    of the run's seed.
    """

    power: float = limit(3.0, above=0)
    tie_is_better: bool = False  # an accuracy equal to the best counts as an improvement

    def next_lr(self, result: EpochResult) -> float:
        return result.lr if result.improved(self.tie_is_better) else result.draw(self.power)


@LR_RULES.register("divide")
@dataclass(kw_only=True)
class Divide(LrRule):
    """Divides the rate after each epoch without improvement.

    The rule of the CIFAR-100 script, used for both heads of the CIFAR-10 pair as well (Q8).
    """

    factor: float = limit(3.0, above=1)
    tie_is_better: bool = True

    def next_lr(self, result: EpochResult) -> float:
        return result.lr if result.improved(self.tie_is_better) else result.lr / self.factor


@LR_RULES.register("divide_at")
@dataclass(kw_only=True)
class DivideAt(LrRule):
    """Divides the rate after given epochs, whatever the accuracy.

    With ``epochs=[2], every_from=22`` this is ``CNN_dropout_CIFAR10.py`` as committed (Q8):
    learning has stopped at epoch 30 of 160.
    """

    factor: float = limit(3.0, above=1)
    epochs: Sequence[int] = ()  # from 1
    every_from: int | None = None  # also divides after this epoch and every later one

    def next_lr(self, result: EpochResult) -> float:
        late = self.every_from is not None and result.epoch >= self.every_from
        return result.lr / self.factor if late or result.epoch in self.epochs else result.lr


@LR_RULES.register("step")
@dataclass(kw_only=True)
class Step(LrRule):
    """``StepLR``: multiplies the rate by a factor every ``step`` epochs of a stage."""

    step: int = limit(7, above=0)
    factor: float = limit(0.1, above=0, below=1)

    def next_lr(self, result: EpochResult) -> float:
        return float(result.base_lr * self.factor ** (result.stage_epoch // self.step))


@LR_RULES.register("redraw_late")
@dataclass(kw_only=True)
class RedrawLate(LrRule):
    """Constant at first, then ``factor * base * U**power`` with a new optimizer every epoch.

    As in ``Arch2_MNIST.py`` (``start=100``) and ``Arch2_Fashion_MNIST.py`` (Q10).
    """

    start: int = limit(above=-1)  # last epoch that is followed by the same rate
    factor: float = limit(5.0, above=0)  # largest rate as a multiple of the base
    power: float = limit(3.0, above=0)

    def next_lr(self, result: EpochResult) -> float:
        return self.factor * result.draw(self.power) if self.restarts(result) else result.lr

    def restarts(self, result: EpochResult) -> bool:
        return result.epoch > self.start
