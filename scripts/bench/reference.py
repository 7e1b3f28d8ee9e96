"""A plain loop written from the recipes: PIL images, one transform at a time, DataLoader.

Memory layout, optimizer and number of workers are PyTorch's defaults; the networks are ours.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from bench.cases import Case
from spinal_repro.data.sources import ImageSet
from spinal_repro.models.classifier import build_model


class _Files(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets return them: PIL, then the transforms."""

    def __init__(self, images: ImageSet, transform: transforms.Compose) -> None:
        assert isinstance(images.images, Tensor)
        self.arrays = images.images.permute(0, 2, 3, 1).squeeze(-1).contiguous().numpy()
        self.labels, self.transform = images.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def transform_of(case: Case) -> transforms.Compose:
    """Build torchvision's transforms for the recipe's augmentation and normalisation."""
    recipe, size = case.config.recipe, case.config.dataset.image_size
    made: Mapping[str, Any] = {
        "perspective": lambda o: transforms.RandomPerspective(
            o["distortion"], o["p"], InterpolationMode(o.get("interpolation", "bilinear"))
        ),
        "rotation": lambda o: transforms.RandomRotation(o["degrees"], fill=(0,)),
        "hflip": lambda o: transforms.RandomHorizontalFlip(o["p"]),
        "pad_crop": lambda o: transforms.RandomCrop(size, padding=o["padding"]),
    }
    steps = [made[entry["name"]](entry) for entry in recipe.augment]
    steps.append(transforms.ToTensor())
    if recipe.mean != [0.0]:
        steps.append(transforms.Normalize(recipe.mean, recipe.std))
    return transforms.Compose(steps)


def plain_batches(case: Case) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches forever."""
    assert isinstance(case.images.train, ImageSet)
    loader = DataLoader(
        _Files(case.images.train, transform_of(case)), batch_size=case.batch_size, shuffle=True
    )
    while True:
        yield from loader


def plain_steps(case: Case) -> Iterator[int]:
    """Train forever; yield the number of images of each step."""
    config, recipe = case.config, case.config.recipe
    model = build_model(config.dataset, config.model, config.head, config.seed).to(case.device)
    model.train()
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), recipe.lr)
    else:
        momentum = {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
        optimizer = torch.optim.SGD(model.parameters(), recipe.lr, **momentum)
    for images, labels in plain_batches(case):
        optimizer.zero_grad()
        logits = model(images.to(case.device))
        smoothing = recipe.label_smoothing
        loss = functional.cross_entropy(logits, labels.to(case.device), label_smoothing=smoothing)
        loss.backward()
        optimizer.step()
        yield len(labels)
