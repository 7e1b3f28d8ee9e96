"""Flips and crops, without interpolation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from spinal_repro.data.augment.base import AUGMENTATIONS, Augmentation, uniform
from spinal_repro.errors import UserError


class _Flip(Augmentation):
    """Flips each image along one axis with probability ``p``."""

    axis: int

    def __init__(self, *, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        self.p = p

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw 1 for images to flip, else 0: ``[count]``."""
        return (uniform(generator, count) < self.p).float()

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        return torch.where(parameters.view(-1, 1, 1, 1) > 0, images.flip(self.axis), images)


@AUGMENTATIONS.register("hflip")
class HorizontalFlip(_Flip):
    """torchvision's ``RandomHorizontalFlip``."""

    axis = -1


@AUGMENTATIONS.register("vflip")
class VerticalFlip(_Flip):
    """torchvision's ``RandomVerticalFlip``."""

    axis = -2


class _Window(Augmentation):
    """Random square crop, after optional zero padding."""

    def _side(self, size: int) -> tuple[int, int]:
        """Return the padding and the side of the crop in pixels."""
        raise NotImplementedError

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw left and top of the crop in the padded image, in pixels: ``[count, 2]``."""
        frame, side = self._side(size)
        high = size + 2 * frame - side + 1
        return torch.randint(0, high, (count, 2), generator=generator).float()

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        frame, side = self._side(images.shape[-1])
        framed = F.pad(images, [frame] * 4) if frame else images
        left, top = parameters.long().unbind(1)
        device = images.device
        steps = torch.arange(side, device=device)
        rows = (top.view(-1, 1) + steps).view(-1, 1, side, 1)
        columns = (left.view(-1, 1) + steps).view(-1, 1, 1, side)
        image = torch.arange(len(images), device=device).view(-1, 1, 1, 1)
        channel = torch.arange(images.shape[1], device=device).view(1, -1, 1, 1)
        return framed[image, channel, rows, columns]


@AUGMENTATIONS.register("pad_crop")
class PadCrop(_Window):
    """torchvision's ``RandomCrop(size, padding)``, with the size of the images."""

    def __init__(self, *, padding: int = 4) -> None:
        if padding < 0:
            raise ValueError(f"padding must not be negative, got {padding}")
        self.padding = padding

    def _side(self, size: int) -> tuple[int, int]:
        return self.padding, size


@AUGMENTATIONS.register("crop")
class Crop(_Window):
    """torchvision's ``RandomCrop(size)``."""

    def __init__(self, *, size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be above 0, got {size}")
        self.size = size

    def _side(self, size: int) -> tuple[int, int]:
        if size < self.size:
            raise UserError(f"images of {size} px cannot be cropped to {self.size} px")
        return 0, self.size

    def size_after(self, size: int) -> int:
        return self._side(size)[1]
