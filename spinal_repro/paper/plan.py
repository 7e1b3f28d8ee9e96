"""How long a run takes on this machine, from a few steps on random images."""

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spinal_repro.config.schema import Config
from spinal_repro.data.augment import build_augmentations
from spinal_repro.models.classifier import build_model
from spinal_repro.training.device import autocast, backend_settings, resolve_device
from spinal_repro.training.engine import training_loss
from spinal_repro.training.optim import build_optimizer

STEPS = 2
PIXELS = 2_000_000  # of a batch that is timed; a larger one is timed in part and scaled up


@dataclass(frozen=True)
class TimeEstimate:
    """What one run takes.

    Attributes:
        epochs: Of the recipe.
        step: Seconds of one training step, augmentation included.
        evaluate: Seconds that evaluating one image takes.
        seconds: Of the whole run.
    """

    epochs: int
    step: float
    evaluate: float
    seconds: float


Timings = dict[tuple[object, ...], tuple[float, float]]


def estimate(config: Config, timings: Timings) -> TimeEstimate:
    """Estimate one run.

    Args:
        config: What is run; sizes of its parts must be known.
        timings: Seconds for one image by what they depend on; read, and added to.
    """
    recipe, dataset = config.recipe, config.dataset
    head = json.dumps(config.head.to_dict(), sort_keys=True)
    key = (config.model.label, head, config.input_size, recipe.batch_size, dataset.outputs)
    if key not in timings:
        timings[key] = _benchmark_step(config)
    train, evaluate = timings[key]
    assert dataset.train_size is not None and dataset.test_size is not None, dataset.name
    images, selecting = dataset.train_size, dataset.test_size
    if config.protocol.select_on == "val":
        held = round(images * config.protocol.val_fraction)
        selecting = held if dataset.val_size is None else dataset.val_size
        images -= held if dataset.val_size is None else 0
    epoch = images * train + selecting * evaluate
    return TimeEstimate(recipe.epochs, train * recipe.batch_size, evaluate, recipe.epochs * epoch)


def _benchmark_step(config: Config) -> tuple[float, float]:
    """Seconds for one image, in training and in evaluation."""
    device = resolve_device(config.runtime.device)
    size = config.input_size
    count = max(2, min(config.recipe.batch_size, PIXELS // (config.dataset.channels * size**2)))
    bare = {k: v for k, v in config.model.options.items() if k not in ("pretrained", "freeze")}
    component = dataclasses.replace(config.model, options=bare)  # weights change no time
    model = build_model(config.dataset, component, config.head, 0, image_size=size).to(device)
    optimizer = build_optimizer(config.recipe, model.parameters())
    augmentations = build_augmentations(config.recipe.augment)
    stored = config.preprocessing("train").size or size
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, config.dataset.channels, stored, stored).to(device)
    labels = torch.arange(count, device=device) % config.dataset.outputs
    precision = autocast(device, config.runtime.precision)

    def step() -> None:
        batch: Tensor = images
        for augmentation in augmentations:
            drawn = augmentation.draw(count, batch.shape[-1], generator)
            batch = augmentation.apply(batch, drawn.to(device))
        with precision():
            output = model(batch)
        training_loss(output, labels, config.recipe.label_smoothing)[1].backward()
        optimizer.step()
        optimizer.zero_grad()

    seen = images[:, :, :size, :size]

    def look() -> None:
        with torch.no_grad(), precision():
            model(seen)

    with backend_settings(device, config.runtime.on(device.type).precision):
        train = _seconds(step, device) / count
        model.eval()
        return train, _seconds(look, device) / count


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Of one call, after a first one that is not counted."""
    work()
    _wait(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        work()
    _wait(device)
    return (time.perf_counter() - start) / STEPS


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
