"""Changes of colour and erased boxes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spinal_repro.data.augment.warps import AUGMENTATIONS, Augmentation, pixel_centres


@AUGMENTATIONS.register("color_jitter")
class ColorJitter(Augmentation):
    """torchvision's ``ColorJitter``, always in the order of its options.

    Brightness, contrast and saturation are multiplied by factors in [max(0, 1 - x), 1 + x], the hue
    is turned by at most ``hue`` of a circle. Without three channels only the first two change.
    """

    def __init__(
        self, *, brightness: float = 0, contrast: float = 0, saturation: float = 0, hue: float = 0
    ) -> None:
        self.reach = (brightness, contrast, saturation, hue)
        if not (min(self.reach) >= 0 and hue <= 0.5):
            raise ValueError(f"its options must not be negative, nor hue above 0.5: {self.reach}")

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw three factors and the turn of the hue: ``[count, 4]``."""
        middle, reach = torch.tensor([1.0, 1, 1, 0]), torch.tensor(self.reach, dtype=torch.float32)
        low = torch.cat([(1 - reach[:3]).clamp(min=0), -reach[3:]])
        return torch.lerp(low, middle + reach, torch.rand(count, 4, generator=generator))

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        brightness, contrast, saturation, turn = parameters.view(-1, 4, 1, 1, 1).unbind(1)
        images = (images * brightness).clamp(0, 255)
        mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
        images = (mean + contrast * (images - mean)).clamp(0, 255)
        if images.shape[1] != 3:
            return images
        grey = _grey(images)
        images = (grey + saturation * (images - grey)).clamp(0, 255)
        return _turned(images, turn) if self.reach[3] else images


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def _turned(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of HSV by a fraction of the circle."""
    top, chroma = images.amax(1, keepdim=True), images.amax(1, True) - images.amin(1, True)
    red, green, blue = images.split(1, dim=1)
    scale = torch.where(chroma > 0, chroma, 1.0)
    sixths = torch.where(top == green, 2 + (blue - red) / scale, 4 + (red - green) / scale)
    sixths = torch.where(top == red, (green - blue) / scale, sixths) + 6 * turn
    away = [(sixths + number) % 6 for number in (5, 3, 1)]
    return torch.cat([top - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in away], dim=1)


@AUGMENTATIONS.register("random_erasing")
class RandomErasing(Augmentation):
    """torchvision's ``RandomErasing`` before normalisation; ``value`` is a grey level, 0 to 255."""

    TRIES = 10  # then the image is left as it is

    def __init__(
        self,
        *,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: float = 0,
    ) -> None:
        if not (0 <= p <= 1 and 0 <= value <= 255):
            raise ValueError(f"p ({p}) must be in [0, 1] and value ({value}) in [0, 255]")
        if any(len(r) != 2 or not 0 < r[0] <= r[1] for r in (scale, ratio)):
            raise ValueError(f"scale ({scale}) and ratio ({ratio}) must be two bounds above 0")
        self.p, self.scale, self.ratio, self.value = p, tuple(scale), tuple(ratio), value

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw left, top, right and bottom in pixels, all 0 for no box: ``[count, 4]``."""
        share, ratio = torch.rand(2, count, self.TRIES, generator=generator)
        (small, large), (low, high) = torch.tensor([self.scale, self.ratio], dtype=torch.float32)
        area = size**2 * torch.lerp(small, large, share)
        ratio = torch.exp(torch.lerp(low.log(), high.log(), ratio))
        sides = torch.stack([(area / ratio).sqrt().round(), (area * ratio).sqrt().round()], dim=-1)
        fits = (sides < size).all(dim=-1)
        sides = sides[torch.arange(count), fits.int().argmax(dim=1)]  # of the first that fits
        corner = (torch.rand(count, 2, generator=generator) * (size - sides + 1)).floor()
        erased = fits.any(dim=1) & (torch.rand(count, generator=generator) < self.p)
        return torch.cat([corner, corner + sides], dim=1) * erased.unsqueeze(1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        left, top, right, bottom = parameters.view(-1, 4, 1, 1).unbind(1)
        x, y = pixel_centres(images)
        box = (x > left) & (x < right) & (y > top) & (y < bottom)
        return torch.where(box.unsqueeze(1), self.value, images)
