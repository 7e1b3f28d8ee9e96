"""Backbones: images ``[N, C, H, W]`` to features ``[N, D]``, independent of heads.

A backbone is a module with ``num_features`` (D), built as
``constructor(channels, image_size, **options)`` with the side of the images in pixels, and
registered under a name. All files of this folder are imported when the first backbone is built,
so a new file is enough to add a family.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache

from torch import Tensor, nn

from spinal_repro.registry import Registry

BACKBONES: Registry[nn.Module] = Registry("model")


@cache
def load_backbones() -> Registry[nn.Module]:
    """Import every family of this folder and return the registry."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return BACKBONES


def check_image_size(image_size: int, least: int) -> None:
    """Refuse images smaller than ``least`` px."""
    if image_size < least:
        hint = " (features in a CSV: choose model=flatten)" if image_size == 1 else ""
        raise ValueError(f"images of {image_size} px are too small; use {least} or more{hint}")


class Backbone(nn.Module):
    """Layers one after the other, whose flattened output is the features."""

    def __init__(self, layers: Sequence[nn.Module], num_features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).flatten(1)
