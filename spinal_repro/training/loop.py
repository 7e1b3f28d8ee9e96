"""The training loop: one epoch of training, one evaluation, and the two in turn."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from spinal_repro.data.augment import Augmentation
from spinal_repro.data.loader import Batches
from spinal_repro.model import Classifier
from spinal_repro.schema import RecipeConfig
from spinal_repro.seeds import stream_seed
from spinal_repro.training.distributed import ALONE, Ranks
from spinal_repro.training.evaluation import Evaluation, evaluate
from spinal_repro.training.finite import (
    NonFiniteLossError,
    check_evaluation,
    check_losses,
    finite_weights,
)
from spinal_repro.training.optim import EpochResult, LrRule
from spinal_repro.training.partway import Clock, Partway, Timed

LOOK_EVERY = 1.0  # seconds between looks at the running loss; each one waits for the device
AUX_WEIGHT = 0.3  # of an auxiliary output's loss (GoogLeNet paper)


@dataclass
class State:
    """Where a run stands; what a checkpoint holds besides weights and optimizer.

    Attributes:
        lr: Learning rate of the next epoch.
        epoch: Epochs finished.
        best_epoch: First epoch with the highest accuracy on the selecting split; 0 for none.
        best_correct: Images it got right.
        history: One entry an epoch; equal for equal configuration and seed.
        timing: One entry an epoch: seconds of training and of evaluation, images a second, and
            the share of training in which the loop made or waited for batches, and the processes
            that shared the work.
        partway: Where the epoch after those stands, if it has begun.
        best_sha256: Of the file with the best weights.
        made_of: Hashes of what the run is trained and tested on, by name.
    """

    lr: float
    epoch: int = 0
    best_epoch: int = 0
    best_correct: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    timing: list[dict[str, Any]] = field(default_factory=list)
    partway: Partway | None = None
    best_sha256: str = ""
    made_of: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trainer:
    """Everything an epoch needs.

    ``select`` holds the split that steers and selects, ``watch`` one whose accuracy is only written
    down after each epoch.
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
    watch: Batches | None = None
    ranks: Ranks = ALONE

    @functools.cached_property
    def parallel(self) -> nn.Module:
        """The model to call in training; its first use is one that all processes must come to."""
        return self.ranks.parallel(self.model, self.train.device)


OnBatch = Callable[[int, dict[str, float] | None], bool | None]
Finish = Callable[[], tuple[float, int, float]]


def fit(
    trainer: Trainer,
    state: State,
    on_epoch: Callable[[State, bool], None],
    on_batch: OnBatch,
    reload_best: Callable[[State], None],
    save: Callable[[State], None] = lambda state: None,
) -> None:
    """Train from where ``state`` stands to the recipe's last epoch.

    Args:
        trainer: What to train and how.
        state: Updated in place.
        on_epoch: Called after each epoch with the state and whether it is the new best one.
        on_batch: Called after each batch with its number of images (0 in evaluation), now and
            then with running figures; says whether to save.
        reload_best: Puts the model back to the best weights so far; called where a stage opens.
        save: Called with the state inside an epoch where ``on_batch`` says so.

    Raises:
        NonFiniteLossError: naming the first step or evaluated batch whose loss is none, before
            ``on_epoch`` is called for that epoch.
    """
    count, ranks = trainer.train.num_images, trainer.ranks
    clock = Clock(trainer.train.device)

    for epoch in range(state.epoch + 1, trainer.recipe.epochs + 1):
        if state.partway is None:
            open_epoch(trainer, state, epoch, reload_best)
            state.partway = Partway.of(len(trainer.train), trainer.train.device)
        lr, partway = state.lr, state.partway
        on_save = functools.partial(save, state)
        finish = train_epoch(trainer, epoch, lr, on_batch, partway, on_save)
        trained = clock.now()

        def look(finish: Finish = finish) -> None:
            if on_batch(0, None):
                finish()
                save(state)

        selected, on_test = evaluate_epoch(trainer, look)
        evaluated = clock.now()
        loss, correct, waited = finish()
        check_epoch(trainer, epoch, selected, on_test)
        watched = {} if on_test is None else _figures("test", on_test)

        state.history.append(
            {
                "epoch": epoch,
                "lr": lr,
                "train_loss": loss,
                "train_accuracy": correct / count,
                **_figures(trainer.select_on, selected),
                **watched,
            }
        )
        state.timing.append(
            {
                "epoch": epoch,
                "train_seconds": partway.seconds,
                "eval_seconds": clock.seconds(trained, evaluated),
                "images_per_second": count / partway.seconds,
                "data_share": waited / partway.seconds,
                "processes": ranks.world,
            }
        )
        first = max((e for e in trainer.recipe.stages if e <= epoch), default=1)
        result = EpochResult(
            epoch=epoch,
            accuracy=selected.accuracy,
            best=state.best_correct / selected.count,
            lr=lr,
            base_lr=trainer.recipe.stages.get(first, trainer.recipe.lr),
            seed=trainer.seed,
            stage_epoch=epoch - first + 1,
        )
        state.lr = trainer.lr_rule.next_lr(result)
        if trainer.lr_rule.restarts(result):
            trainer.optimizer.state.clear()
        is_best = state.best_epoch == 0 or selected.correct > state.best_correct
        if is_best:
            state.best_epoch, state.best_correct = epoch, selected.correct
        state.epoch, state.partway = epoch, None
        on_epoch(state, is_best)


def evaluate_epoch(
    trainer: Trainer, look: Callable[[], None] = lambda: None
) -> tuple[Evaluation, Evaluation | None]:
    """The part that selects, and the one that is watched if there is one; losses may be NaN."""

    def result(batches: Batches) -> Evaluation:
        return evaluate(trainer.model, batches, trainer.autocast, trainer.ranks, look)

    return result(trainer.select), None if trainer.watch is None else result(trainer.watch)


def check_epoch(
    trainer: Trainer, epoch: int, selected: Evaluation, watched: Evaluation | None
) -> None:
    """Refuse losses of `evaluate_epoch` that are not finite.

    Raises:
        NonFiniteLossError: naming the evaluation and its batch.
    """
    on, after = trainer.select_on, f"after epoch {epoch}"
    name = "the validation" if on == "val" else "the test"
    check_evaluation(selected, trainer.select, on, epoch, f"{name} {after}")
    if watched is not None and trainer.watch is not None:
        check_evaluation(watched, trainer.watch, "test", epoch, f"the watched test {after}")


def evaluate_checked(
    trainer: Trainer,
    batches: Batches,
    part: str,
    epoch: int,
    name: str,
    look: Callable[[], None] = lambda: None,
) -> Evaluation:
    """One evaluation whose loss is finite.

    Args:
        trainer: Of the model.
        batches: Of the split.
        part: Its name.
        epoch: That the model's weights are from.
        name: Of the evaluation, in words.
        look: Called after each batch.

    Raises:
        NonFiniteLossError: where it is not, on all processes.
    """
    found = evaluate(trainer.model, batches, trainer.autocast, trainer.ranks, look)
    check_evaluation(found, batches, part, epoch, name)
    return found


def _figures(part: str, found: Evaluation) -> dict[str, Any]:
    """What the history says of one evaluation."""
    return {
        f"{part}_loss": found.loss,
        f"{part}_accuracy": found.accuracy,
        f"{part}_correct": found.correct,
    }


def open_epoch(
    trainer: Trainer, state: State, epoch: int, reload_best: Callable[[State], None]
) -> None:
    """What changes before the first step of some epochs.

    Where a stage opens, the run continues from the best weights with a fresh optimizer and the
    stage's learning rate (1.5). Where the backbone starts to learn, the optimizer starts afresh.

    Nothing here draws random numbers or looks at anything but the state between two epochs, so a
    run that is killed in the stage's first epoch opens the stage again in the same way.
    """
    if epoch == trainer.recipe.head_epochs + 1:
        trainer.optimizer.state.clear()
    if epoch not in trainer.recipe.stages:
        return
    reload_best(state)
    trainer.optimizer.state.clear()
    state.lr = trainer.recipe.stages[epoch]
    if trainer.recipe.best_of_last_stage:  # as the original (Q21)
        state.best_epoch, state.best_correct = 0, 0


def train_epoch(
    trainer: Trainer,
    epoch: int,
    lr: float,
    on_batch: OnBatch,
    partway: Partway | None = None,
    on_save: Callable[[], None] = lambda: None,
) -> Finish:
    """Train on every image once, without waiting for the device.

    Args:
        trainer: What to train and how.
        epoch: From 1.
        lr: Learning rate.
        on_batch: As for `fit`.
        partway: Where the epoch stands, kept up to date; its beginning unless given.
        on_save: Called where ``on_batch`` says so, with ``partway`` up to date.

    Returns:
        A function that waits for the last step, checks the epoch and brings ``partway`` up to date.
        It gives the mean loss and the number of images right, over the epoch as it went, and the
        seconds spent on making or waiting for batches.

    Raises:
        NonFiniteLossError: naming the first step whose loss is not finite. The returned function
            raises it, too, and for weights after the last step.
    """
    model, optimizer, batches, ranks = (
        trainer.model,
        trainer.optimizer,
        trainer.train,
        trainer.ranks,
    )
    if trainer.recipe.head_epochs:
        model.freeze(epoch <= trainer.recipe.head_epochs)
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = lr
    torch.manual_seed(stream_seed(trainer.seed, "dropout", epoch) + ranks.rank)
    partway = partway or Partway.of(len(batches), batches.device)
    partway.restore(batches.device)
    losses, correct, done = partway.losses, partway.correct, partway.step  # of this process
    seen = min(done * batches.batch_size, batches.num_images)
    clock, before = Clock(batches.device), partway.seconds
    began = clock.now()
    more = epoch < trainer.recipe.epochs
    stream = Timed(
        batches.epoch(trainer.seed, epoch, trainer.augmentations, done, draw_next=more),
        partway.waited,
    )
    numbers = functools.partial(batches.images, trainer.seed, epoch)

    def done_so_far(step: int) -> Finish:
        """What `train_epoch` returns, after any step."""
        finite = finite_weights(model, optimizer)
        figures, ended = _joined(ranks.total(losses), ranks.total(correct), finite), clock.now()

        def finish() -> tuple[float, int, float]:
            host = figures.cpu()
            total, (right, *good) = host[: len(losses)], host[len(losses) :].tolist()
            check_losses(total, epoch, numbers)
            for name in (name for name, fine in zip(finite, good, strict=True) if not fine):
                what = f"{name} is not finite"
                raise NonFiniteLossError(what, epoch, step, len(losses), numbers(step))
            partway.mark(step, before + clock.seconds(began, ended), stream.seconds)
            return total.double().sum().item() / seen, int(right), stream.seconds

        return finish

    looked = time.monotonic()
    for step, (images, labels) in enumerate(stream, done):
        mine, whole = batches.sizes(step)
        with trainer.autocast():
            output = trainer.parallel(images)
        logits, loss = training_loss(output, labels, trainer.recipe.label_smoothing)
        ranks.weighted(loss, mine, whole).backward()
        optimizer.step()
        optimizer.zero_grad()

        losses[step] = loss.detach() * mine
        correct += (logits.detach().argmax(dim=1) == labels)[:mine].sum()
        seen += whole
        running = None
        if ranks.world == 1 and time.monotonic() - looked >= LOOK_EVERY:
            looked = time.monotonic()
            total, right = ranks.total(losses), ranks.total(correct)
            check_losses(total, epoch, numbers)
            running = {"loss": total.sum().item() / seen, "acc": right.item() / seen}
        if on_batch(whole, running):
            done_so_far(step + 1)()
            on_save()
    assert seen == batches.num_images
    return done_so_far(len(losses))


def _joined(losses: Tensor, correct: Tensor, finite: Mapping[str, Tensor]) -> Tensor:
    """The figures of an epoch as one tensor, so that one copy brings them to the host.

    Args:
        losses: One a step, float32.
        correct: Images right, ``[]``; float32 holds it exactly up to 2^24.
        finite: Flags ``[]`` by name.
    """
    flags = [flag.to(losses.device, losses.dtype) for flag in finite.values()]
    return torch.cat([losses, torch.stack([correct.to(losses.dtype), *flags])])


def training_loss(
    output: Tensor | tuple[Tensor, list[Tensor]], labels: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Logits ``[N, C]`` and the loss to descend: cross-entropy, auxiliary outputs at 0.3.

    Args:
        output: What the classifier gave in training mode.
        labels: ``[N]``.
        label_smoothing: Share of the target spread over all classes.
    """
    logits, extra = output if isinstance(output, tuple) else (output, [])
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    for aux in extra:
        aux_loss = F.cross_entropy(aux.float(), labels, label_smoothing=label_smoothing)
        loss = loss + AUX_WEIGHT * aux_loss
    return logits, loss
