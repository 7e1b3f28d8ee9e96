"""Repeating the batch at which a run met a number that is none, looking closely this time."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spinal_repro.environment import deterministic, resolve_device
from spinal_repro.errors import UserError
from spinal_repro.inference import run_place
from spinal_repro.reading import read_yaml
from spinal_repro.records import RECORD, stored_config
from spinal_repro.schema import Config
from spinal_repro.training import run as runs
from spinal_repro.training.assist import continued, test_both
from spinal_repro.training.checkpoint import load_best
from spinal_repro.training.finite import NonFiniteLossError
from spinal_repro.training.loop import Trainer, evaluate_epoch, open_epoch, train_epoch
from spinal_repro.training.report import Setup
from spinal_repro.training.threads import settle_threads


@dataclass(frozen=True)
class Found:
    """The first number that is none.

    Attributes:
        what: Where it appeared: the output of a module, a gradient, a weight, or the loss alone.
        epoch: From 1.
        step: From 1; of an evaluation, its batch.
        images: The batch's images, as numbers in the published part they are from.
        labels: Their classes.
        lr: The learning rate.
        part: That the images are from.
        evaluation: Which one it was, in words; empty for training.
    """

    what: str
    epoch: int
    step: int
    images: list[int]
    labels: list[int]
    lr: float
    part: str = "train"
    evaluation: str = ""


class _Here(Exception):  # noqa: N818  # no error: what was looked for
    """Ends the replay; its argument says what is not finite."""


def replay(folder: Path) -> Found | None:
    """Train on from the last checkpoint, looking at every module, gradient and weight.

    Then the epoch is evaluated, or tested where all are trained; where a loss is not finite, its
    batch is repeated, looking at every module. Nothing is written. On the CPU a step is the same
    to the bit as it was, and so is an evaluation in one process.

    Args:
        folder: A run folder.

    Returns:
        The first number that is none; None where the next epoch, or the final test, has none.

    Raises:
        UserError: where it is no run folder, or the run is finished.
    """
    config = _config(folder)
    if (folder / RECORD).is_file():
        raise UserError(f"{folder} has nothing to repeat: it is finished")
    device = resolve_device(config.runtime.device)
    settle_threads(config, folder)
    with deterministic(config.runtime.deterministic, device):
        setup = runs._prepare(config, device)
        trainer = setup.trainer
        state, _ = continued(folder, setup)
        epoch = state.epoch + 1
        if epoch > config.recipe.epochs:
            try:
                test_both(folder, setup, state)
            except NonFiniteLossError as error:
                return _closely(error, setup, state.lr)
            return None
        if state.partway is None:
            open_epoch(trainer, state, epoch, lambda state: load_best(folder, state, trainer.model))
        steps = _Steps(0 if state.partway is None else state.partway.step)
        try:
            with _watching(trainer, steps):
                train_epoch(trainer, epoch, state.lr, steps.count, state.partway)
            evaluate_epoch(trainer, epoch)
        except _Here as here:
            return _found(str(here), trainer, epoch, steps.done + 1, state.lr)
        except NonFiniteLossError as error:
            if error.evaluation:
                return _closely(error, setup, state.lr)
            # seen in the sums alone
            return _found(str(error), trainer, epoch, error.step, state.lr)
    return None


def _found(what: str, trainer: Trainer, epoch: int, step: int, lr: float) -> Found:
    images = trainer.train.images(trainer.seed, epoch, step)
    return Found(what, epoch, step, images, trainer.train.labels_at(trainer.seed, epoch, step), lr)


def _closely(error: NonFiniteLossError, setup: Setup, lr: float) -> Found:
    """Repeat an evaluated batch with the weights that it met, which the model still has."""
    trainer = setup.trainer
    batches = trainer.select if error.part == trainer.select_on else setup.test
    assert batches is not None
    images, labels = next(islice(batches.in_order(), error.step - 1, None))
    what = f"{error.what}, of outputs that are finite"
    try:
        with torch.inference_mode(), trainer.autocast(), _watching(trainer, _Steps(0)):
            _refuse(trainer.model(images), "the output of the model")
    except _Here as here:
        what = str(here)
    return Found(
        what, error.epoch, error.step, error.images, labels.tolist(), lr,
        error.part, error.evaluation,
    )  # fmt: skip


@dataclass
class _Steps:
    """Counts steps."""

    done: int

    def count(self, images: int, running: dict[str, float] | None) -> bool:
        self.done += 1
        return False


@contextmanager
def _watching(trainer: Trainer, steps: _Steps) -> Iterator[None]:
    """Look at what modules give, at gradients before a step and at weights after it."""
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}

    def of(name: str) -> Any:
        def look(module: nn.Module, given: Any, output: Any) -> None:
            for value in output if isinstance(output, tuple | list) else (output,):
                _refuse(value, f"the output of {name} ({type(module).__name__})")

        return look

    def gradients(*_: Any) -> None:
        for parameter, name in names.items():
            _refuse(parameter.grad, f"the gradient of {name}")

    def weights(*_: Any) -> None:
        for parameter, name in names.items():
            _refuse(parameter.detach(), f"{name} after the optimizer's step")

    leaves = [(n, m) for n, m in trainer.model.named_modules() if not list(m.children())]
    hooks: list[Any] = [module.register_forward_hook(of(name)) for name, module in leaves]
    hooks.append(trainer.optimizer.register_step_pre_hook(gradients))
    hooks.append(trainer.optimizer.register_step_post_hook(weights))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _refuse(value: Any, what: str) -> None:
    if isinstance(value, Tensor) and not torch.isfinite(value).all():
        bad = value[~torch.isfinite(value)]
        raise _Here(f"{what} has {len(bad):,} of {value.numel():,} numbers that are {bad[0]:g}")


def _config(folder: Path) -> Config:
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no run folder (it has no config.yaml); see spinal status")
    try:
        config = stored_config(read_yaml(path))
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    # whose folder it may be: nothing is fetched for it, and nothing kept where it says
    data = dataclasses.replace(config.data, download=False)
    return dataclasses.replace(config, data=data, runs=str(run_place(folder, config)))
