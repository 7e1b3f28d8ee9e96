"""How many CPU threads a run computes with.

Another number of threads changes the last digits of sums, so a run keeps the number that it began
with unless ``runtime.threads=N`` asks for another one; its ``config.yaml`` and its record say it.
"""

import copy
import dataclasses
import itertools
import time
from pathlib import Path

import torch
import yaml

from spinal_repro.schema import Config
from spinal_repro.training.loop import Trainer, training_loss

STEPS, ROUNDS = 3, 3


def settle_threads(config: Config, folder: Path) -> Config:
    """Set the number of threads, unless it is to be found out: then one thread for now.

    Args:
        config: Of the run.
        folder: Of the run; one that is continued keeps the number it began with, unless it is
            asked for another one.

    Returns:
        The configuration with the number; with ``auto`` where steps have to be timed.
    """
    threads = config.runtime.threads
    if not isinstance(threads, int):
        threads = begun_with(folder) or threads or torch.get_num_threads()
    if isinstance(threads, int):
        torch.set_num_threads(threads)
    return with_threads(config, threads)


def with_threads(config: Config, threads: int | str) -> Config:
    """The same configuration with another number of threads."""
    return dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, threads=threads))


def begun_with(folder: Path) -> int | None:
    """The number of threads of a run that began before; None for any other."""
    try:
        found = yaml.safe_load((folder / "config.yaml").read_text())["runtime"]["threads"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) and found > 0 else None


def fastest_threads(trainer: Trainer) -> int:
    """One thread or all that PyTorch has: whichever takes a few training steps sooner.

    Steps are taken on a copy of the model without an optimizer, batches come from streams of
    their own and dropout is seeded anew by every epoch: the run itself is untouched.

    Returns:
        The number, which is set.
    """
    most = torch.get_num_threads()
    best = 1
    if most > 1 and trainer.train.device.type == "cpu":
        model = copy.deepcopy(trainer.model).train()
        times: dict[int, list[float]] = {1: [], most: []}
        for _ in range(1 + ROUNDS):  # the first one warms up
            for threads, seconds in times.items():
                torch.set_num_threads(threads)
                seconds.append(_seconds(trainer, model))
        best = min(times, key=lambda threads: min(times[threads][1:]))
    elif trainer.train.device.type != "cpu":
        best = most
    torch.set_num_threads(best)
    return best


def _seconds(trainer: Trainer, model: torch.nn.Module) -> float:
    """Time of a few steps, the batches' making included."""
    started = time.perf_counter()
    batches = trainer.train.epoch(trainer.seed, 1, trainer.augmentations)
    for images, labels in itertools.islice(batches, STEPS):
        with trainer.autocast():
            output = model(images)
        training_loss(output, labels, trainer.recipe.label_smoothing)[1].backward()
    return time.perf_counter() - started
