"""Repeating the step at which a run met a number that is none, looking closely this time."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spinal_repro.environment import deterministic, resolve_device
from spinal_repro.errors import UserError
from spinal_repro.inference import run_place
from spinal_repro.reading import read_yaml
from spinal_repro.records import stored_config
from spinal_repro.schema import Config
from spinal_repro.training import run as runs
from spinal_repro.training.assist import continued
from spinal_repro.training.checkpoint import load_best
from spinal_repro.training.finite import NonFiniteLossError
from spinal_repro.training.loop import Trainer, open_epoch, train_epoch
from spinal_repro.training.threads import settle_threads


@dataclass(frozen=True)
class Found:
    """The first number that is none.

    Attributes:
        what: Where it appeared: the output of a module, a gradient, or a weight.
        epoch: From 1.
        step: From 1.
        images: The batch's images, as numbers in the published training part.
        labels: Their classes.
        lr: The learning rate.
    """

    what: str
    epoch: int
    step: int
    images: list[int]
    labels: list[int]
    lr: float


class _Here(Exception):  # noqa: N818  # no error: what was looked for
    """Ends the replay; its argument says what is not finite."""


def replay(folder: Path) -> Found | None:
    """Train on from the last checkpoint, looking at every module, gradient and weight.

    Nothing is written. On the CPU a step is the same to the bit as it was.

    Args:
        folder: A run folder.

    Returns:
        The first number that is none; None where the next epoch has none.

    Raises:
        UserError: where it is no run folder, or the run has nothing left to train.
    """
    config = _config(folder)
    device = resolve_device(config.runtime.device)
    settle_threads(config, folder)
    with deterministic(config.runtime.deterministic, device):
        setup = runs._prepare(config, device)
        trainer = setup.trainer
        state, _ = continued(folder, setup)
        epoch = state.epoch + 1
        if epoch > config.recipe.epochs:
            raise UserError(f"{folder} has nothing to repeat: all its epochs are trained")
        if state.partway is None:
            open_epoch(trainer, state, epoch, lambda state: load_best(folder, state, trainer.model))
        steps = _Steps(0 if state.partway is None else state.partway.step)
        try:
            with _watching(trainer, steps):
                train_epoch(trainer, epoch, state.lr, steps.count, state.partway)
        except _Here as here:
            return _found(str(here), trainer, epoch, steps.done + 1, state.lr)
        except NonFiniteLossError as error:  # seen in the sums alone
            return _found(str(error), trainer, epoch, error.step, state.lr)
    return None


def _found(what: str, trainer: Trainer, epoch: int, step: int, lr: float) -> Found:
    images = trainer.train.images(trainer.seed, epoch, step)
    return Found(what, epoch, step, images, trainer.train.labels_at(trainer.seed, epoch, step), lr)


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
