"""Base class and registry of augmentations."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from spinal_repro.registry import Registry


class Augmentation(ABC):
    """A random transform of square images of a fixed size."""

    @abstractmethod
    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw parameters ``[count, ...]`` float32 for images of ``size`` px, on the CPU."""

    @abstractmethod
    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Transform images ``[N, C, H, W]`` (float) by their parameters ``[N, ...]``."""

    def size_after(self, size: int) -> int:
        """Return the side of the result for images of ``size`` px."""
        return size


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")
