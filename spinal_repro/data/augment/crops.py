"""Flips and crops."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spinal_repro.data.augment.warps import AUGMENTATIONS, Augmentation, pixel_centres, sample
from spinal_repro.errors import UserError


@AUGMENTATIONS.register("hflip")
class HorizontalFlip(Augmentation):
    """torchvision's ``RandomHorizontalFlip``."""

    axis = -1

    def __init__(self, *, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        self.p = p

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw 1 for images to flip, else 0: ``[count]``."""
        return (torch.rand(count, generator=generator) < self.p).float()

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        return torch.where(parameters.view(-1, 1, 1, 1) > 0, images.flip(self.axis), images)


@AUGMENTATIONS.register("vflip")
class VerticalFlip(HorizontalFlip):
    """torchvision's ``RandomVerticalFlip``."""

    axis = -2


@AUGMENTATIONS.register("pad_crop")
class PadCrop(Augmentation):
    """torchvision's ``RandomCrop(size, padding)``, with the size of the images."""

    def __init__(self, *, padding: int = 4) -> None:
        if padding < 0:
            raise ValueError(f"padding must not be negative, got {padding}")
        self.padding = padding

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw left and top of the crop in the padded image, in pixels: ``[count, 2]``."""
        high = size + 2 * self.padding - self.size_after(size) + 1
        return torch.randint(0, high, (count, 2), generator=generator).float()

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        side = self.size_after(images.shape[-1])
        framed = F.pad(images, [self.padding] * 4) if self.padding else images
        windows = framed.unfold(2, side, 1).unfold(3, side, 1)  # [N, C, rows, columns, H, W]
        left, top = parameters.long().unbind(1)
        return windows[torch.arange(len(images), device=images.device), :, top, left]


@AUGMENTATIONS.register("crop")
class Crop(PadCrop):
    """torchvision's ``RandomCrop(size)``."""

    def __init__(self, *, size: int) -> None:
        super().__init__(padding=0)
        if size < 1:
            raise ValueError(f"size must be above 0, got {size}")
        self.size = size

    def size_after(self, size: int) -> int:
        if size < self.size:
            raise UserError(f"images of {size} px cannot be cropped to {self.size} px")
        return self.size


@AUGMENTATIONS.register("resized_crop")
class ResizedCrop(Augmentation):
    """torchvision's ``RandomResizedCrop``: a random box, resized bilinearly.

    Args:
        scale: Range of the box's area, as a fraction of the image's.
        ratio: Range of width over height, drawn log-uniformly.
        size: Side of the result in pixels; None for that of the images.
        antialias: Average over the pixels of a box that shrinks, as torchvision does.
    """

    TRIES = 10  # then the largest central box of an allowed ratio is taken

    def __init__(
        self,
        *,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        size: int | None = None,
        antialias: bool = False,
    ) -> None:
        if size is not None and size < 1:
            raise ValueError(f"size must be above 0, got {size}")
        for name, bounds in (("scale", scale), ("ratio", ratio)):
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
                raise ValueError(f"{name} needs a lower and an upper bound above 0, got {bounds}")
        self.scale, self.ratio, self.size = tuple(scale), tuple(ratio), size
        self.antialias = antialias

    def size_after(self, size: int) -> int:
        return self.size or size

    def draw(self, count: int, size: int | Tensor, generator: torch.Generator) -> Tensor:
        """Draw left, top, width and height of the boxes in pixels: ``[count, 4]``.

        ``size`` may also be the height and width of each image: ``[count, 2]``.
        """
        high, wide = torch.as_tensor(size).float().expand(count, 2).unbind(1)
        low, up = self.scale
        share = low + (up - low) * torch.rand(count, self.TRIES, generator=generator)
        area = (high * wide).unsqueeze(1) * share
        low, up = (math.log(bound) for bound in self.ratio)
        ratio = torch.exp(low + (up - low) * torch.rand(count, self.TRIES, generator=generator))
        sides = torch.stack([area * ratio, area / ratio], dim=-1).sqrt().round()
        whole = torch.stack([wide, high], dim=1)
        fits = ((sides > 0) & (sides <= whole.unsqueeze(1))).all(dim=-1)
        first = sides[torch.arange(count), fits.int().argmax(dim=1)]
        most = torch.stack([high.double() * self.ratio[1], wide.double() / self.ratio[0]], dim=1)
        any_fits = fits.any(dim=1, keepdim=True)
        sides = torch.where(any_fits, first, torch.minimum(whole, most.round().float()))
        free, places = whole - sides, torch.rand(2, count, generator=generator).T
        corner = torch.where(any_fits, places * (free + 1), free / 2).floor()
        return torch.cat([corner, sides], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        side = self.size_after(images.shape[-1])
        left, top, width, height = parameters.view(-1, 4, 1, 1).unbind(1)
        if self.antialias and side < images.shape[-1]:  # else no box can shrink
            rows = _averages(images.shape[-2], side, top, height).unsqueeze(1)
            columns = _averages(images.shape[-1], side, left, width)
            return rows @ (images.flatten(1, 2) @ columns.mT).unflatten(1, images.shape[1:3])
        x, y = pixel_centres(images, side)
        # clamped to the box, because pixels around it are not part of the crop
        source_x = left + torch.clamp(x * width / side, min=0.5).minimum(width - 0.5)
        source_y = top + torch.clamp(y * height / side, min=0.5).minimum(height - 0.5)
        shape = (len(images), side, side)
        return sample(images, source_x.expand(shape), source_y.expand(shape))


def _averages(size: int, side: int, start: Tensor, length: Tensor) -> Tensor:
    """Weights ``[N, side, size]`` that resize parts of images to ``side`` px, as PIL does.

    ``start`` and ``length`` of the parts are ``[N, 1, 1]``, in pixels. The weights fall linearly to
    0 at one output pixel from the centre, or at one input pixel if that is more.
    """
    pixels = torch.arange(size, device=start.device) + 0.5 - start
    scale = length / side
    centres = (torch.arange(side, device=start.device).unsqueeze(1) + 0.5) * scale
    weights = (1 - (pixels - centres).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixels > 0) & (pixels < length))
    return weights / weights.sum(dim=-1, keepdim=True)
