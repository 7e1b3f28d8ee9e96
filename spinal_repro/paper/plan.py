"""Estimate of the time of a run on this machine, from a few steps on random images."""

import dataclasses
from statistics import mean
from typing import Any

import torch

from spinal_repro.config.schema import Config
from spinal_repro.data.sources import Dataset, ImageSet
from spinal_repro.training.device import backend_settings, resolve_device
from spinal_repro.training.engine import fit
from spinal_repro.training.setup import build_run

STEPS = 2
PIXELS = 2_000_000  # of a timed batch; larger ones are scaled up
Timings = dict[str, tuple[float, float]]


def estimate(config: Config, timings: Timings) -> tuple[float, float]:
    """Estimate the seconds of a training step, augmentation included, and of the whole run.

    ``timings`` are the seconds of an image by model and batch; measured ones are added.
    """
    recipe, dataset = config.recipe, config.dataset
    parts = (config.model, config.head, config.input_size, recipe.batch_size)
    key = str((*parts, dataset.outputs))
    if key not in timings:
        timings[key] = _measure(config)
    train, evaluate = timings[key]
    assert dataset.train_size is not None and dataset.test_size is not None, dataset.name
    images, selecting = dataset.train_size, dataset.test_size
    if config.protocol.select_on == "val":
        held = round(images * config.protocol.val_fraction)
        selecting = held if dataset.val_size is None else dataset.val_size
        images -= held if dataset.val_size is None else 0
    epoch = images * train + selecting * evaluate
    return train * recipe.batch_size, recipe.epochs * epoch


def _measure(config: Config) -> tuple[float, float]:
    """Seconds for one image, in training and in evaluation, after one epoch to warm up."""
    device, dataset = resolve_device(config.runtime.device), config.dataset
    size = config.input_size
    count = max(2, min(config.recipe.batch_size, PIXELS // (dataset.channels * size**2)))
    stored = {"train": config.preprocessing("train").size or size, "eval": size}
    labels = torch.arange(count) % dataset.outputs
    train, test = (
        ImageSet(torch.randint(256, (count, dataset.channels, s, s), dtype=torch.uint8), labels)
        for s in stored.values()
    )
    plain: Any = {"mean": [0.5], "std": [0.5], "stages": {}, "head_epochs": 0}
    plain["prepare"] = {part: {"resize": [side, side]} for part, side in stored.items()}
    recipe = dataclasses.replace(config.recipe, epochs=1 + STEPS, batch_size=count, **plain)
    protocol = dataclasses.replace(config.protocol, select_on="test", val_fraction=0.0)
    runtime = config.runtime.on(device.type)
    timed = dataclasses.replace(config, recipe=recipe, protocol=protocol, runtime=runtime)
    with backend_settings(device, runtime.precision):
        run = build_run(timed, device, Dataset(train, test)).run
        fit(run)
    epochs = run.state.timing[1:]
    in_training = mean(epoch["train_seconds"] for epoch in epochs) / count
    return in_training, mean(epoch["eval_seconds"] for epoch in epochs) / count
