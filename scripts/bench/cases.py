"""The networks to measure, on published images or noise."""

import dataclasses
import functools
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch

from bench.airbench import OVERRIDES
from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Config
from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.loader import Batches
from spinal_repro.data.sources import Dataset, ImageSet, load_dataset
from spinal_repro.errors import UserError
from spinal_repro.models.classifier import build_model
from spinal_repro.training.device import autocast, backend_settings
from spinal_repro.training.engine import Run, State, Steps
from spinal_repro.training.graph import GraphedSteps
from spinal_repro.training.optim import LR_RULES, build_optimizer

MODELS = {
    "cnn": "mnist",
    "vgg5": "mnist",
    "airbench": "cifar10",
    "cifar_cnn": "cifar10",
    "resnet18_thin": "cifar10",
    "vgg16_bn": "cifar10",
}
HEADS = ("fc", "spinal")
SIZES = {"mnist": (60000, 10000), "cifar10": (50000, 10000)}


@dataclasses.dataclass(frozen=True)
class Case:
    """One network with one head, at one precision."""

    config: Config
    images: Dataset
    source: str
    device: torch.device
    graph: bool = False  # steps as one CUDA graph

    @property
    def name(self) -> str:
        """Model, head and precision."""
        return f"{self.config.model.name} {self.config.head.name} {self.config.runtime.precision}"

    @property
    def batch_size(self) -> int:
        """The batch size of the recipe."""
        return self.config.recipe.batch_size

    def settings(self) -> AbstractContextManager[None]:
        """Switch PyTorch's global settings to those of a run."""
        return backend_settings(self.device, self.config.runtime.precision)

    def run(self, images: int) -> Run:
        """Build a run on the first images of train and the same fraction of test."""
        config, device = self.config, self.device
        recipe, last = config.recipe, config.runtime.channels_last
        model = build_model(config.dataset, config.model, config.head, config.seed)
        layout = torch.channels_last if last else torch.preserve_format
        model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        train, test = SIZES[config.dataset.name]
        held = max(1, min(len(self.images.test), images * test // train))

        def batches(part: ImageSet, count: int, batch_size: int) -> Batches:
            return Batches(
                part,
                np.arange(count),
                batch_size=batch_size,
                mean=recipe.mean or [0.0],
                std=recipe.std or [1.0],
                device=device,
                channels_last=last,
            )

        assert isinstance(self.images.train, ImageSet) and isinstance(self.images.test, ImageSet)
        return Run(
            model=model,
            optimizer=build_optimizer(recipe, model.parameters()),
            lr_rule=LR_RULES.build_entry(recipe.lr_rule),
            recipe=recipe,
            train=batches(self.images.train, images, recipe.batch_size),
            select=batches(self.images.test, held, recipe.eval_batch_size),
            select_on="test",
            augmentations=build_augmentations(recipe.augment),
            autocast=autocast(device, config.runtime.precision),
            seed=config.seed,
            state=State(recipe.lr),
            steps=GraphedSteps() if self.graph else Steps(),
        )


def pairs(models: Iterable[str], heads: Iterable[str]) -> list[tuple[str, str]]:
    """Combine networks and heads; airbench has its own head alone, called ``fc``."""
    return [(m, h) for m in models for h in heads if (m, h) != ("airbench", "spinal")]


def make_case(
    model: str,
    head: str,
    precision: str,
    device: torch.device,
    data: str | None,
    graph: bool = False,
) -> Case:
    """Build a case on published images if they are there, else on noise of the same shape."""
    quadrants = model == "resnet18_thin" and head == "spinal"
    chosen = OVERRIDES if model == "airbench" else [f"model={model}", f"head={head}"]
    config = compose(
        [
            *(f"dataset={MODELS[model]}", *chosen, "protocol=paper"),
            *(["model.pool=2"] if quadrants else []),  # as published
            *(f"runtime.precision={precision}", f"runtime.device={device.type}"),
        ]
    )
    return Case(config, *_images(MODELS[model], data), device, graph)


@functools.cache
def _images(dataset: str, data: str | None) -> tuple[Dataset, str]:
    """Load images once for all networks: `published` ones, or `noise`."""
    config = compose([f"dataset={dataset}"])
    if data is not None:
        try:
            return load_dataset(config.dataset, Path(data)), "published"
        except UserError as error:
            print(f"noise instead of {dataset}: {error}")
    return _noise(config), "noise"


def _noise(config: Config) -> Dataset:
    """Make images of uniform noise, which do not change the time."""
    generator = torch.Generator().manual_seed(0)
    side, parts = config.dataset.image_size, []
    for count in SIZES[config.dataset.name]:
        shape = (count, config.dataset.channels, side, side)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, config.dataset.outputs, (count,), generator=generator)
        parts.append(ImageSet(pixels, labels))
    return Dataset(parts[0], parts[1])
