"""The training loop: `fit` runs epochs, each one `train_one_epoch` and one `evaluate`.

Everything that is not training (checkpoints, progress, trackers, NaN checks, signals) is a
`Callback`. The loop does not synchronise with the device before the end of an evaluation.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spinal_repro.config.schema import RecipeConfig
from spinal_repro.data.augment import Augmentation
from spinal_repro.data.loader import Batch, Batches
from spinal_repro.models.classifier import Classifier
from spinal_repro.seeds import stream_seed
from spinal_repro.training.device import seconds_between, timestamp
from spinal_repro.training.evaluation import evaluate
from spinal_repro.training.loss import mixed, training_loss
from spinal_repro.training.optim import EpochResult, LrRule, stage_at, update_average


class Callback:
    """Hooks of the training loop; each does nothing unless overridden."""

    def on_fit_start(self, run: "Run") -> None:
        """Before the first epoch."""

    def on_step_end(self, run: "Run", step: int, losses: Tensor, num_images: int) -> None:
        """After a training step, counted from 1 in each epoch, on a batch of ``num_images``.

        ``losses`` is the summed loss of each step of this epoch ``[steps]``, on the device; 0 for
        steps not yet taken. Reading it waits for the device.
        """

    def on_epoch_end(self, run: "Run", is_best: bool) -> None:
        """After an epoch, its evaluation and the update of ``run.state``."""


@dataclass
class State:
    """Progress of a run; stored in a checkpoint with the weights and the optimizer.

    ``history`` and ``timing`` have one entry per epoch. The history depends on configuration and
    seed only; timing has seconds, images per second and the fraction of time spent on batches.
    """

    lr: float  # of the next epoch
    epoch: int = 0  # number of finished epochs
    best_epoch: int = 0  # first with the highest score on the selecting split; 0: none yet
    best_score: float = 0.0  # accuracy on that split in best_epoch, or protocol.select_metric
    history: list[dict[str, Any]] = field(default_factory=list)
    timing: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Run:
    """Everything that `fit` needs; built by `setup.build_run`."""

    model: Classifier
    optimizer: Optimizer
    lr_rule: LrRule
    recipe: RecipeConfig
    train: Batches
    select: Batches  # the split that selects the epoch and drives the learning-rate rule
    select_on: str  # its name: val or test
    augmentations: Sequence[Augmentation]
    autocast: Callable[[], AbstractContextManager[Any]]
    seed: int
    state: State
    select_metric: str = "accuracy"  # on that split
    watch: Batches | None = None  # the test split, if its accuracy is recorded but not used
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of best_epoch, on the device
    stop: str = ""  # reason to stop, set by a callback; `Checkpoint` then stops the run
    average: Classifier | None = None  # with recipe.ema: a copy with averaged weights
    mixers: Sequence[Any] = ()  # torchvision's MixUp and CutMix, as the recipe has them
    steps: "Steps" = field(default_factory=lambda: Steps())

    @property
    def evaluated(self) -> Classifier:
        """The model that is evaluated and kept."""
        return self.average or self.model

    @property
    def finished(self) -> bool:
        """Whether no epoch is left, or ``recipe.patience`` is at its end."""
        epoch, patience = self.state.epoch, self.recipe.patience
        return epoch >= self.recipe.epochs or 0 < patience <= epoch - self.state.best_epoch


class Steps:
    """Takes the steps of an epoch, and counts on the device."""

    losses: Tensor  # summed loss of each step of the epoch [steps]; 0 for steps not yet taken
    correct: Tensor  # number of correct images []
    note = ""  # for the log

    def start(self, run: Run) -> None:
        """Set learning rates and counts for an epoch."""
        batches = run.train
        for group in run.optimizer.param_groups:
            group["lr"] = self.learning_rate(run, group)
        self.losses = torch.zeros(len(batches), device=batches.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=batches.device)

    def learning_rate(self, run: Run, group: dict[str, Any]) -> float:
        """Learning rate of a group of weights in this epoch."""
        return float(run.state.lr * group.get("lr_scale", 1.0))

    def take(self, run: Run, step: int, batch: Batch) -> None:
        """Train on a batch; the step counts from 0."""
        self.losses[step], correct = training_step(run, *batch)
        self.correct += correct


def fit(run: Run, callbacks: Sequence[Callback] = ()) -> None:
    """Train from ``run.state`` to the recipe's last epoch."""
    device = run.train.device
    for callback in callbacks:
        callback.on_fit_start(run)
    while not run.finished:
        epoch = run.state.epoch + 1
        start_stage(run, epoch)
        began = timestamp(device)
        data_seconds = train_one_epoch(run, epoch, callbacks)[-1]
        end_epoch(run, began, timestamp(device), data_seconds, callbacks)


def end_epoch(
    run: Run, began: Any, trained: Any, data_seconds: float, callbacks: Sequence[Callback] = ()
) -> None:
    """Evaluate after an epoch, update ``run.state``, and call the callbacks.

    ``began`` and ``trained`` are timestamps of its training.
    """
    state, device, steps = run.state, run.train.device, run.steps
    epoch, evaluating = state.epoch + 1, timestamp(device)
    keep = run.select_metric != "accuracy"
    selected = evaluate(run.evaluated, run.select, run.autocast, keep)
    watched = evaluate(run.evaluated, run.watch, run.autocast) if run.watch else None
    evaluated = timestamp(device)

    score = selected.score(run.select_metric)
    count, seconds = run.train.num_images, max(seconds_between(began, trained), 1e-9)
    entry = {
        "epoch": epoch,
        "lr": state.lr,
        "train_loss": steps.losses.cpu().double().sum().item() / count,
        "train_accuracy": steps.correct.item() / count,
        **selected.metrics(run.select_on),
        f"{run.select_on}_{run.select_metric}": score,
        **(watched.metrics("test") if watched else {}),
    }
    times = {
        "epoch": epoch,
        "train_seconds": seconds,
        "eval_seconds": seconds_between(evaluating, evaluated),
        "images_per_second": count / seconds,
        "data_share": data_seconds / seconds,
    }
    state.history.append(entry)
    state.timing.append(times)
    step_learning_rate(run, epoch, score)
    is_best = state.best_epoch == 0 or score > state.best_score
    if is_best:
        state.best_epoch, state.best_score = epoch, score
        weights = run.evaluated.state_dict()
        run.best = {name: t.detach().clone() for name, t in weights.items()}
    state.epoch = epoch
    for callback in callbacks:
        callback.on_epoch_end(run, is_best)


def start_epoch(run: Run, epoch: int) -> Iterator[Batch]:
    """Set modes, dropout's seed, rates and counts for an epoch; return its batches."""
    model, recipe = run.model, run.recipe
    if recipe.head_epochs:
        model.freeze(epoch <= recipe.head_epochs)
    model.train(not recipe.eval_mode_after or epoch <= recipe.eval_mode_after)
    torch.manual_seed(stream_seed(run.seed, "dropout", epoch))
    run.steps.start(run)
    return run.train.epoch(run.seed, epoch, run.augmentations, draw_next=epoch < recipe.epochs)


def train_one_epoch(
    run: Run, epoch: int, callbacks: Sequence[Callback] = ()
) -> tuple[Tensor, Tensor, float]:
    """Train on every image once, or on as many as the recipe's sampler draws.

    Returns the summed loss of each step ``[steps]`` and the number of correct images ``[]``, both
    on the device, and the seconds spent waiting for batches.
    """
    steps, stream = run.steps, start_epoch(run, epoch)
    data_seconds, began = 0.0, time.perf_counter()
    for step, batch in enumerate(stream):
        data_seconds += time.perf_counter() - began
        if run.mixers:  # a seed for each step
            seed = stream_seed(run.seed, "augment", epoch) + 1 + step
            batch = mixed(run.mixers, seed, *batch)
        steps.take(run, step, batch)
        for callback in callbacks:
            callback.on_step_end(run, step + 1, steps.losses, len(batch[0]))
        began = time.perf_counter()
    return steps.losses, steps.correct, data_seconds


def training_step(
    run: Run, images: Tensor, targets: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Update the model by one batch; return its summed loss ``[]`` and correct images ``[]``."""
    model, optimizer = run.model, run.optimizer
    with run.autocast():
        output = model(images)
    logits, loss = training_loss(output, targets, run.recipe.label_smoothing, weights)
    loss.backward()
    if run.recipe.clip_grad is not None:
        nn.utils.clip_grad_norm_(model.parameters(), run.recipe.clip_grad)
    optimizer.step()
    optimizer.zero_grad()
    if run.average is not None:
        update_average(run.average, model, run.recipe.ema)
    labels = targets if targets.dim() == 1 else targets.argmax(dim=1)
    return loss.detach() * len(labels), (logits.detach().argmax(dim=1) == labels).sum()


def start_stage(run: Run, epoch: int) -> None:
    """Restore the best weights and reset the optimizer if a stage starts at this epoch."""
    recipe, state = run.recipe, run.state
    if epoch == recipe.head_epochs + 1:  # the backbone is unfrozen
        run.optimizer.state.clear()
    if epoch not in recipe.stages:
        return
    for model in {run.model, run.evaluated}:
        model.load_state_dict(run.best)
    run.optimizer.state.clear()
    state.lr = run.lr_rule.first_lr(*stage_at(recipe, epoch)[1:])
    if recipe.best_of_last_stage:  # as the original scripts do (Q21)
        state.best_epoch, state.best_score = 0, 0.0


def step_learning_rate(run: Run, epoch: int, score: float) -> None:
    """Set the learning rate of the next epoch by the recipe's rule and the epoch's score."""
    recipe, state = run.recipe, run.state
    first, base_lr, epochs = stage_at(recipe, epoch)
    result = EpochResult(
        epoch=epoch,
        accuracy=score,
        best=state.best_score,
        lr=state.lr,
        base_lr=base_lr,
        seed=run.seed,
        stage_epoch=epoch - first + 1,
        epochs=epochs,
    )
    state.lr = run.lr_rule.next_lr(result)
    if run.lr_rule.restarts(result):
        run.optimizer.state.clear()
