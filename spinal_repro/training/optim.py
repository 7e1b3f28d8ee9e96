"""Optimizers and the learning-rate rules of the recipes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from inspect import unwrap
from typing import Any

import torch
from torch import nn, optim
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from spinal_repro.config.schema import RecipeConfig, limit
from spinal_repro.errors import UserError, check_known
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


SGD, Adam, AdamW = map(_without_compiler, (optim.SGD, optim.Adam, optim.AdamW))


def build_optimizer(
    recipe: RecipeConfig,
    parameters: Iterable[nn.Parameter],
    backbone: Iterable[nn.Parameter] = (),
) -> Optimizer:
    """Build the recipe's optimizer; betas, epsilon and dampening are PyTorch's defaults."""
    name, weights = recipe.optimizer, [p for p in parameters if p.requires_grad]
    fused = all(p.device.type in ("cpu", "cuda") for p in weights)
    options: Any = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": fused}
    groups: Any = weights
    if recipe.backbone_lr_scale != 1:
        body = set(map(id, backbone))
        slow, rest = ([p for p in weights if (id(p) in body) is part] for part in (True, False))
        if not slow:
            raise UserError("no backbone is trained: leave out recipe.backbone_lr_scale")
        # the loop multiplies the rate by lr_scale
        groups = [{"params": slow, "lr_scale": recipe.backbone_lr_scale}, {"params": rest}]
    if recipe.nesterov and not (name == "sgd" and recipe.momentum):
        raise UserError("recipe.nesterov=true needs recipe.optimizer=sgd with recipe.momentum")
    if name == "sgd":
        return SGD(groups, momentum=recipe.momentum, nesterov=recipe.nesterov, **options)
    kinds = {"adam": Adam, "adamw": AdamW}
    check_known("optimizer", name, ("sgd", *kinds))
    if recipe.momentum:
        raise UserError(f"recipe.momentum is an option of sgd; use recipe.momentum=0 with {name}")
    return kinds[name](groups, **options)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Average weights and statistics; PyTorch's ``AveragedModel`` would wait for the device."""
    tensors = ([*module.parameters(), *module.buffers()] for module in (average, model))
    pairs = list(zip(*tensors, strict=True))
    floats: Any = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    get_ema_multi_avg_fn(decay)(*map(list, floats), 0)
    for ours, theirs in pairs:
        if not ours.is_floating_point():  # a count of batches
            ours.copy_(theirs)


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
    epochs: int = 0  # of the stage

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

    uses_epochs = False  # whether the rates depend on the number of epochs

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            for word, bound in option.metadata.items():
                if not (value > bound if word == "above" else value < bound):
                    raise ValueError(f"{option.name} must be {word} {bound}, got {value}")

    def first_lr(self, base_lr: float, epochs: int) -> float:
        """Learning rate of the first of the ``epochs`` of a run, or of a stage."""
        return base_lr

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


@LR_RULES.register("cosine")
@dataclass(kw_only=True)
class Cosine(LrRule):
    """``CosineAnnealingLR`` over the epochs of a stage, after a linear warm-up.

    The rates are those of ``SequentialLR`` with ``LinearLR(start_factor=1 / (warmup + 1))``.
    """

    uses_epochs = True
    warmup: int = limit(0, above=-1)  # epochs below the full rate
    min_lr: float = 0.0  # the rate that would follow the last epoch

    def _rate(self, base_lr: float, epochs: int, done: int) -> float:
        if done < self.warmup:
            return base_lr * (done + 1) / (self.warmup + 1)
        share = (done - self.warmup) / (epochs - self.warmup)
        return self.min_lr + (base_lr - self.min_lr) * (1 + math.cos(math.pi * share)) / 2

    def first_lr(self, base_lr: float, epochs: int) -> float:
        if not (self.warmup < epochs and 0 <= self.min_lr < base_lr):
            raise UserError(
                f"recipe.lr_rule.warmup must be below {epochs}, min_lr in [0, {base_lr:g})"
            )
        return self._rate(base_lr, epochs, 0)

    def next_lr(self, result: EpochResult) -> float:
        return self._rate(result.base_lr, result.epochs, result.stage_epoch)


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


def stage_at(recipe: RecipeConfig, epoch: int) -> tuple[int, float, int]:
    """Find first epoch, base learning rate and number of epochs of the stage of an epoch."""
    starts = {1: recipe.lr, **recipe.stages, recipe.epochs + 1: 0.0}
    first = max(e for e in starts if e <= epoch)
    return first, starts[first], min(e for e in starts if e > epoch) - first


def build_rule(recipe: RecipeConfig) -> tuple[LrRule, float]:
    """Build the recipe's learning-rate rule; return it with the rate of the first epoch."""
    rule = LR_RULES.build_entry(recipe.lr_rule)
    starts = [1, *(epoch for epoch in recipe.stages if epoch <= recipe.epochs)]
    rates = [rule.first_lr(*stage_at(recipe, epoch)[1:]) for epoch in starts]  # checks them all
    return rule, rates[0]
