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

from spinal_repro.environment import backend_settings, resolve_device
from spinal_repro.errors import UserError
from spinal_repro.files import read_json, read_yaml
from spinal_repro.inference import run_place
from spinal_repro.records import RECORD, stored_config
from spinal_repro.schema import Config
from spinal_repro.training import run as runs
from spinal_repro.training.assist import continued, test_both
from spinal_repro.training.checkpoint import BestWeights
from spinal_repro.training.finite import FAILURE, NonFiniteLossError
from spinal_repro.training.loop import State, Trainer, fit
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

    It trains up to the epoch that failed, with its evaluation, or repeats the final test where
    all epochs are done; an evaluated batch whose loss is not finite is repeated, looking at every
    module. Nothing is written. On the CPU a step is the same to the bit as it was, and so is an
    evaluation in one process.

    Args:
        folder: A run folder.

    Returns:
        The first number that is not finite; None where all are finite this time.

    Raises:
        UserError: where it is no run folder, or the run is finished.
    """
    config = _config(folder)
    if (folder / RECORD).is_file():
        raise UserError(f"{folder} has nothing to repeat: it is finished")
    device = resolve_device(config.runtime.device)
    settle_threads(config, folder)
    with backend_settings(device, config.runtime.precision, config.runtime.deterministic):
        setup = runs._prepare(config, device)
        state, _ = continued(folder, setup)
        if state.epoch == config.recipe.epochs:
            try:
                test_both(folder, setup, state)
            except NonFiniteLossError as error:
                return _closely(error, setup, state.lr)
            return None
        last = min(_last_epoch(folder, state), config.recipe.epochs)
        recipe = dataclasses.replace(config.recipe, epochs=last)
        trainer = dataclasses.replace(setup.trainer, recipe=recipe)
        best = BestWeights(folder, trainer.model)
        steps = _Steps(0 if state.partway is None else state.partway.step)

        def on_epoch(state: State, is_best: bool) -> None:
            steps.done = 0
            if is_best:
                best.keep()

        try:
            with _watching(trainer, training=True):
                fit(trainer, state, on_epoch, steps.count, best.load)
        except _Here as here:
            return _found(str(here), trainer, state.epoch + 1, steps.done + 1, state.lr)
        except NonFiniteLossError as error:
            if error.evaluation:
                return _closely(error, setup, state.lr)
            # seen in the sums alone
            return _found(str(error), trainer, error.epoch, error.step, state.lr)
    return None


def _last_epoch(folder: Path, state: State) -> int:
    """The epoch that failed, or the next one where the run did not say."""
    path = folder / FAILURE
    said = read_json(path).get("epoch") if path.is_file() else None
    return max(said if isinstance(said, int) else 0, state.epoch + 1)


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
        with torch.inference_mode(), trainer.autocast(), _watching(trainer, training=False):
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
        self.done += images > 0  # evaluation calls it with none
        return False


@contextmanager
def _watching(trainer: Trainer, *, training: bool) -> Iterator[None]:
    """Check outputs of modules in one mode, gradients before a step and weights after it."""
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}

    def of(name: str) -> Any:
        def look(module: nn.Module, given: Any, output: Any) -> None:
            values = output if isinstance(output, tuple | list) else (output,)
            for value in values if trainer.model.training is training else ():
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
