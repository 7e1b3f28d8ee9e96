"""The training loop: `fit` runs epochs, each one `train_one_epoch` and one `evaluate`.

Everything that is not training (checkpoints, progress, trackers, NaN checks, signals) is a
`Callback`. Nothing in here waits for the device before an epoch and its evaluation are done.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from spinal_repro.config.schema import RecipeConfig
from spinal_repro.data.augment import Augmentation
from spinal_repro.data.loader import Batches
from spinal_repro.models.classifier import Classifier
from spinal_repro.seeds import stream_seed
from spinal_repro.training.optim import EpochResult, LrRule
from spinal_repro.training.timing import Clock, Timed

AUX_WEIGHT = 0.3  # weight of the loss of an auxiliary output (GoogLeNet paper)


class Callback:
    """Hooks of the training loop; each does nothing unless overridden."""

    def on_fit_start(self, run: "Run") -> None:
        """Before the first epoch."""

    def on_step_end(self, run: "Run", step: int, losses: Tensor, num_images: int) -> None:
        """After a training step.

        Args:
            run: The run.
            step: From 1.
            losses: Summed loss of each batch of this epoch ``[steps]``, on the device; 0 for the
                steps to come. Reading it waits for the device.
            num_images: Images of this batch.
        """

    def on_epoch_end(self, run: "Run", is_best: bool) -> None:
        """After an epoch, its evaluation and the update of ``run.state``."""

    def on_fit_end(self, run: "Run") -> None:
        """After the last epoch."""


@dataclass
class State:
    """Progress of a run: what a checkpoint holds besides weights and optimizer.

    Attributes:
        lr: Learning rate of the next epoch.
        epoch: Epochs finished.
        best_epoch: First epoch with the highest accuracy on the selecting split; 0 before it.
        best_correct: Images that were right in it.
        history: One entry an epoch; equal for equal configuration and seed.
        timing: One entry an epoch: seconds of training and of evaluation, images a second, and
            the share of training in which the loop waited for batches.
    """

    lr: float
    epoch: int = 0
    best_epoch: int = 0
    best_correct: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    timing: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Run:
    """Everything that `fit` needs; built by `setup.build_run`.

    Attributes:
        select: The split that picks the epoch and steers the learning rate.
        select_on: Its name, ``val`` or ``test``.
        watch: A split whose accuracy is only recorded.
        best: Weights of ``state.best_epoch``, on the device.
        stop: Why the run should stop, set by a callback; `callbacks.Checkpoint` stops it.
    """

    model: Classifier
    optimizer: Optimizer
    lr_rule: LrRule
    recipe: RecipeConfig
    train: Batches
    select: Batches
    select_on: str
    augmentations: Sequence[Augmentation]
    autocast: Callable[[], AbstractContextManager[Any]]
    seed: int
    state: State
    watch: Batches | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    stop: str = ""


@dataclass(frozen=True)
class Evaluation:
    """Result on one split of ``count`` images."""

    correct: int
    count: int
    loss: float  # mean over the images
    predictions: Tensor  # classes [N], on the CPU

    @property
    def accuracy(self) -> float:
        """Share of images right, in [0, 1]."""
        return self.correct / self.count


def fit(run: Run, callbacks: Sequence[Callback] = ()) -> None:
    """Train from ``run.state`` to the recipe's last epoch."""
    state, clock = run.state, Clock(run.train.device)
    for callback in callbacks:
        callback.on_fit_start(run)
    for epoch in range(state.epoch + 1, run.recipe.epochs + 1):
        start_stage(run, epoch)
        began = clock.now()
        losses, correct, waited = train_one_epoch(run, epoch, callbacks)
        trained = clock.now()
        selected = evaluate(run.model, run.select, run.autocast)
        watched = evaluate(run.model, run.watch, run.autocast) if run.watch else None
        evaluated = clock.now()

        count, seconds = run.train.num_images, max(clock.seconds(began, trained), 1e-9)
        entry = {
            "epoch": epoch,
            "lr": state.lr,
            "train_loss": losses.cpu().double().sum().item() / count,
            "train_accuracy": correct.item() / count,
            **_metrics(run.select_on, selected),
            **(_metrics("test", watched) if watched else {}),
        }
        times = {
            "epoch": epoch,
            "train_seconds": seconds,
            "eval_seconds": clock.seconds(trained, evaluated),
            "images_per_second": count / seconds,
            "data_share": waited / seconds,
        }
        state.history.append(entry)
        state.timing.append(times)
        step_learning_rate(run, epoch, selected)
        is_best = state.best_epoch == 0 or selected.correct > state.best_correct
        if is_best:
            state.best_epoch, state.best_correct = epoch, selected.correct
            run.best = {name: t.detach().clone() for name, t in run.model.state_dict().items()}
        state.epoch = epoch
        for callback in callbacks:
            callback.on_epoch_end(run, is_best)
    for callback in callbacks:
        callback.on_fit_end(run)


def train_one_epoch(
    run: Run, epoch: int, callbacks: Sequence[Callback] = ()
) -> tuple[Tensor, Tensor, float]:
    """Train on every image once.

    Returns:
        Summed loss of each step ``[steps]`` and number of images right ``[]``, both on the
        device, and the seconds spent waiting for batches.
    """
    model, optimizer, batches = run.model, run.optimizer, run.train
    if run.recipe.head_epochs:
        model.freeze(epoch <= run.recipe.head_epochs)
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = run.state.lr
    torch.manual_seed(stream_seed(run.seed, "dropout", epoch))
    losses = torch.zeros(len(batches), device=batches.device)
    correct = torch.zeros((), dtype=torch.int64, device=batches.device)
    more = epoch < run.recipe.epochs
    stream = Timed(batches.epoch(run.seed, epoch, run.augmentations, draw_next=more))

    for step, (images, labels) in enumerate(stream):
        with run.autocast():
            output = model(images)
        logits, loss = training_loss(output, labels, run.recipe.label_smoothing)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

        losses[step] = loss.detach() * len(labels)
        correct += (logits.detach().argmax(dim=1) == labels).sum()
        for callback in callbacks:
            callback.on_step_end(run, step + 1, losses, len(labels))
    return losses, correct, stream.seconds


def training_loss(
    output: Tensor | tuple[Tensor, list[Tensor]], labels: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Logits ``[N, C]`` and the loss: cross-entropy, auxiliary outputs weighted by `AUX_WEIGHT`.

    Args:
        output: Of the classifier in training mode.
        labels: ``[N]``.
        label_smoothing: Share of the target spread over all classes.
    """
    logits, auxiliary = output if isinstance(output, tuple) else (output, [])
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    for aux in auxiliary:
        aux_loss = F.cross_entropy(aux.float(), labels, label_smoothing=label_smoothing)
        loss = loss + AUX_WEIGHT * aux_loss
    return logits, loss


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Batches, autocast: Callable[[], AbstractContextManager[Any]]
) -> Evaluation:
    """Loss and accuracy over every image of a split, once, in evaluation mode."""
    model.eval()
    total = torch.zeros((), device=batches.device)
    predictions = []
    for images, labels in batches.in_order():
        with autocast():
            logits = model(images)
        total = total + F.cross_entropy(logits.float(), labels, reduction="sum")
        predictions.append(logits.argmax(dim=1))
    predicted, count = torch.cat(predictions), batches.num_images
    assert len(predicted) == count
    correct = int((predicted == batches.labels).sum())
    return Evaluation(correct, count, total.item() / count, predicted.cpu())


def start_stage(run: Run, epoch: int) -> None:
    """Where a stage begins: best weights so far, fresh optimizer, the stage's learning rate."""
    recipe, state = run.recipe, run.state
    if epoch == recipe.head_epochs + 1:  # the backbone starts to learn
        run.optimizer.state.clear()
    if epoch not in recipe.stages:
        return
    run.model.load_state_dict(run.best)
    run.optimizer.state.clear()
    state.lr = recipe.stages[epoch]
    if recipe.best_of_last_stage:  # as the original scripts do (Q21)
        state.best_epoch, state.best_correct = 0, 0


def step_learning_rate(run: Run, epoch: int, selected: Evaluation) -> None:
    """Let the recipe's rule choose the next epoch's learning rate."""
    recipe, state = run.recipe, run.state
    first = max((e for e in recipe.stages if e <= epoch), default=1)
    result = EpochResult(
        epoch=epoch,
        accuracy=selected.accuracy,
        best=state.best_correct / selected.count,
        lr=state.lr,
        base_lr=recipe.stages.get(first, recipe.lr),
        seed=run.seed,
        stage_epoch=epoch - first + 1,
    )
    state.lr = run.lr_rule.next_lr(result)
    if run.lr_rule.restarts(result):
        run.optimizer.state.clear()


def _metrics(split: str, found: Evaluation) -> dict[str, Any]:
    return {
        f"{split}_loss": found.loss,
        f"{split}_accuracy": found.accuracy,
        f"{split}_correct": found.correct,
    }
