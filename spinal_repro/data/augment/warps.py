"""Geometric warps, by batched grid sampling."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spinal_repro.data.augment.base import AUGMENTATIONS, Augmentation, uniform


def _pixel_centres(images: Tensor, side: int | None = None) -> tuple[Tensor, Tensor]:
    """Return coordinates ``[1, 1, W]`` and ``[1, H, 1]`` of the centres of output pixels."""
    height, width = (side, side) if side else images.shape[-2:]
    x = torch.arange(width, device=images.device, dtype=torch.float32) + 0.5
    y = torch.arange(height, device=images.device, dtype=torch.float32) + 0.5
    return x.view(1, 1, -1), y.view(1, -1, 1)


def _sample(images: Tensor, x: Tensor, y: Tensor, mode: str) -> Tensor:
    """Sample images at input coordinates ``[N, H, W]`` in pixels (centres at +0.5)."""
    height, width = images.shape[-2:]
    grid = x.new_empty(*x.shape, 2)  # written in place: stacking costs more than sampling
    torch.sub(x * (2 / width), 1, out=grid[..., 0])
    torch.sub(y * (2 / height), 1, out=grid[..., 1])
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def _inside(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return 1 for input coordinates inside the image, else 0: ``[N, 1, H, W]``."""
    height, width = images.shape[-2:]
    return ((x >= 0) & (x < width) & (y >= 0) & (y < height)).unsqueeze(1).to(images.dtype)


@AUGMENTATIONS.register("perspective")
class Perspective(Augmentation):
    """torchvision's ``RandomPerspective``: corners move inwards by whole pixels; fill 0, bilinear.

    Args:
        distortion: Largest displacement of a corner, as a fraction of half the side.
        p: Probability that an image is warped.
    """

    def __init__(self, *, distortion: float = 0.5, p: float = 0.5) -> None:
        if not (0 <= distortion <= 1 and 0 <= p <= 1):
            raise ValueError(f"distortion ({distortion}) and p ({p}) must be in [0, 1]")
        self.distortion, self.p = distortion, p

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw coefficients a..h of the map from output to input pixels: ``[count, 8]``."""
        reach = int(self.distortion * (size // 2)) + 1
        moves = torch.randint(0, reach, (count, 4, 2), generator=generator).double()
        warped = uniform(generator, count) < self.p
        far = size - 1
        corners = torch.tensor([[0, 0], [far, 0], [far, far], [0, far]], dtype=torch.float64)
        inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]], dtype=torch.float64)
        coefficients = torch.zeros(count, 8)
        coefficients[:, 0] = coefficients[:, 4] = 1  # the identity
        ends = corners + inwards * moves[warped]
        coefficients[warped] = homography(corners.expand_as(ends), ends).float()
        return coefficients

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        a, b, c, d, e, f, g, h = parameters.view(-1, 8, 1, 1).unbind(1)
        x, y = _pixel_centres(images)
        scale = g * x + h * y + 1
        source_x, source_y = (a * x + b * y + c) / scale, (d * x + e * y + f) / scale
        warped = _sample(images, source_x, source_y, "bilinear")
        return warped * _inside(images, source_x, source_y)


def homography(start: Tensor, end: Tensor) -> Tensor:
    """Solve for the coefficients ``[N, 8]`` of the projective maps from ``end`` to ``start``.

    If three end points are on a line (possible from a distortion of about 0.65), there is no such
    map, and the identity is returned.

    Args:
        start: Corners ``[N, 4, 2]`` in the input image.
        end: The same corners ``[N, 4, 2]`` in the output image.
    """
    x, y = end[..., 0], end[..., 1]
    u, v = start[..., 0], start[..., 1]
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    upper = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    lower = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    equations, values = torch.cat([upper, lower], dim=1), torch.cat([u, v], dim=1)
    solution, _ = torch.linalg.solve_ex(equations, values)
    sides = end.roll(-1, 1) - end
    after = sides.roll(-1, 1)
    areas = sides[..., 0] * after[..., 1] - sides[..., 1] * after[..., 0]  # of corner triples
    identity = values.new_tensor([1, 0, 0, 0, 1, 0, 0, 0])
    return torch.where((areas == 0).any(dim=1, keepdim=True), identity, solution)


@AUGMENTATIONS.register("rotation")
class Rotation(Augmentation):
    """torchvision's ``RandomRotation``: uniform in [-degrees, degrees], nearest pixel, fill 0."""

    def __init__(self, *, degrees: float) -> None:
        if not 0 <= degrees < math.inf:
            raise ValueError(f"degrees must be finite and not negative, got {degrees}")
        self.degrees = degrees

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw angles ``[count]`` in radians, counter-clockwise."""
        return (2 * uniform(generator, count) - 1) * math.radians(self.degrees)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        return self._rotate(images, parameters.view(-1, 1, 1), 0.0, 0.0)

    @staticmethod
    def _rotate(
        images: Tensor, angles: Tensor, right: Tensor | float, down: Tensor | float
    ) -> Tensor:
        """Rotate by ``angles`` and shift by pixels, all ``[N, 1, 1]``."""
        height, width = images.shape[-2:]
        cos, sin = torch.cos(angles), torch.sin(angles)
        x, y = _pixel_centres(images)
        x, y = x - width / 2 - right, y - height / 2 - down
        source_x, source_y = cos * x - sin * y + width / 2, sin * x + cos * y + height / 2
        return _sample(images, source_x, source_y, "nearest") * _inside(images, source_x, source_y)


@AUGMENTATIONS.register("affine")
class Affine(Rotation):
    """torchvision's ``RandomAffine(degrees, translate)``: rotation, then shift.

    Args:
        degrees: Largest angle in degrees.
        translate: Largest horizontal and vertical shift, as fractions of the side.
    """

    def __init__(self, *, degrees: float, translate: Sequence[float] = (0.0, 0.0)) -> None:
        super().__init__(degrees=degrees)
        if len(translate) != 2 or not all(0 <= share <= 1 for share in translate):
            raise ValueError(f"translate needs two fractions in [0, 1], got {translate}")
        self.translate = tuple(translate)

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw angles in radians, and shifts right and down in pixels: ``[count, 3]``."""
        angles = super().draw(count, size, generator)
        reach = torch.tensor(self.translate) * size
        shifts = ((2 * uniform(generator, count, 2) - 1) * reach).round()
        return torch.cat([angles.view(-1, 1), shifts], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        angles, right, down = parameters.view(-1, 3, 1, 1).unbind(1)
        return self._rotate(images, angles, right, down)


@AUGMENTATIONS.register("resized_crop")
class ResizedCrop(Augmentation):
    """torchvision's ``RandomResizedCrop``: a random box, resized bilinearly.

    Args:
        scale: Range of the box's area, as a fraction of the image's.
        ratio: Range of width over height, drawn log-uniformly.
        size: Side of the result in pixels; None for that of the images.
    """

    TRIES = 10  # then the largest central box of an allowed ratio is taken

    def __init__(
        self,
        *,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        size: int | None = None,
    ) -> None:
        if size is not None and size < 1:
            raise ValueError(f"size must be above 0, got {size}")
        for name, bounds in (("scale", scale), ("ratio", ratio)):
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
                raise ValueError(f"{name} needs a lower and an upper bound above 0, got {bounds}")
        self.scale, self.ratio, self.size = tuple(scale), tuple(ratio), size

    def size_after(self, size: int) -> int:
        return self.size or size

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw left, top, width and height of the boxes in pixels: ``[count, 4]``."""
        low, high = self.scale
        area = size * size * (low + (high - low) * uniform(generator, count, self.TRIES))
        low, high = (math.log(bound) for bound in self.ratio)
        ratio = torch.exp(low + (high - low) * uniform(generator, count, self.TRIES))
        widths, heights = torch.sqrt(area * ratio).round(), torch.sqrt(area / ratio).round()
        fits = (widths > 0) & (widths <= size) & (heights > 0) & (heights <= size)
        first = fits.int().argmax(dim=1, keepdim=True)
        width, height = widths.gather(1, first)[:, 0], heights.gather(1, first)[:, 0]
        # if no box fits: the whole image, narrowed if its ratio 1 is not allowed
        none = ~fits.any(dim=1)
        width[none] = round(size * min(1.0, self.ratio[1]))
        height[none] = round(size / max(1.0, self.ratio[0]))
        free_x, free_y = size - width, size - height
        left = (uniform(generator, count) * (free_x + 1)).floor()
        top = (uniform(generator, count) * (free_y + 1)).floor()
        left[none], top[none] = (free_x[none] / 2).floor(), (free_y[none] / 2).floor()
        return torch.stack([left, top, width, height], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        side = self.size_after(images.shape[-1])
        left, top, width, height = parameters.view(-1, 4, 1, 1).unbind(1)
        x, y = _pixel_centres(images, side)
        # clamped to the box, because pixels around it are not part of the crop
        source_x = left + torch.clamp(x * width / side, min=0.5).minimum(width - 0.5)
        source_y = top + torch.clamp(y * height / side, min=0.5).minimum(height - 0.5)
        shape = (len(images), side, side)
        return _sample(images, source_x.expand(shape), source_y.expand(shape), "bilinear")
