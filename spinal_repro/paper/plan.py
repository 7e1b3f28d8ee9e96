"""Estimate of the time of a run on this machine, from a few steps on random images."""

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
PIXELS = 2_000_000  # of a timed batch; larger ones are scaled up


Timings = dict[tuple[object, ...], tuple[float, float]]


@dataclass(frozen=True)
class TimeEstimate:
    """Estimated time of one run, in seconds."""

    epochs: int
    step: float  # of one training step, augmentation included
    seconds: float  # of the whole run


def estimate(config: Config, timings: Timings) -> TimeEstimate:
    """Estimate the time of one run, whose data set has known sizes.

    ``timings`` holds the seconds of an image in training and in evaluation, by model and batch;
    measured ones are added.
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
    return TimeEstimate(recipe.epochs, train * recipe.batch_size, recipe.epochs * epoch)


def _benchmark_step(config: Config) -> tuple[float, float]:
    """Seconds for one image, in training and in evaluation."""
    device = resolve_device(config.runtime.device)
    size = config.input_size
    count = max(2, min(config.recipe.batch_size, PIXELS // (config.dataset.channels * size**2)))
    model = build_model(
        config.dataset, config.model, config.head, image_size=size, load_weights=False
    ).to(device)
    optimizer = build_optimizer(config.recipe, model.parameters())
    augmentations = build_augmentations(config.recipe.augment)
    stored = config.preprocessing("train").size or size
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, config.dataset.channels, stored, stored).to(device)
    labels = torch.arange(count, device=device) % config.dataset.outputs
    precision = autocast(device, config.runtime.precision)

    def train() -> None:
        batch: Tensor = images
        for augmentation in augmentations:
            drawn = augmentation.draw(count, batch.shape[-1], generator)
            batch = augmentation.apply(batch, drawn.to(device))
        with precision():
            output = model(batch)
        training_loss(output, labels, config.recipe.label_smoothing)[1].backward()
        optimizer.step()
        optimizer.zero_grad()

    def evaluate() -> None:
        with torch.no_grad(), precision():
            model(images[:, :, :size, :size])

    with backend_settings(device, config.runtime.on(device.type).precision):
        seconds = _seconds(train, device) / count
        model.eval()
        return seconds, _seconds(evaluate, device) / count


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Measure the mean seconds of `STEPS` calls, after one warm-up call."""
    work()
    start = _now(device)
    for _ in range(STEPS):
        work()
    return (_now(device) - start) / STEPS


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
