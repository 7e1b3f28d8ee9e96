"""The base class of augmentations, and geometric warps by batched grid sampling."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spinal_repro.errors import one_of
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


def pixel_centres(images: Tensor, side: int | None = None) -> tuple[Tensor, Tensor]:
    """Return coordinates ``[1, 1, W]`` and ``[1, H, 1]`` of the centres of output pixels."""
    height, width = (side, side) if side else images.shape[-2:]
    x = torch.arange(width, device=images.device, dtype=torch.float32) + 0.5
    y = torch.arange(height, device=images.device, dtype=torch.float32) + 0.5
    return x.view(1, 1, -1), y.view(1, -1, 1)


def sample(images: Tensor, x: Tensor, y: Tensor, mode: str = "bilinear") -> Tensor:
    """Sample images at input coordinates ``[N, H, W]`` in pixels (centres at +0.5)."""
    height, width = images.shape[-2:]
    grid = x.new_empty(*x.shape, 2)  # written in place: stacking costs more than sampling
    torch.sub(x * (2 / width), 1, out=grid[..., 0])
    torch.sub(y * (2 / height), 1, out=grid[..., 1])
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def _sample_bicubic(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """As `sample`, with the cubic of PIL's transforms: a = -1, where ``grid_sample`` has -0.75.

    Along one axis, the cubic between two pixels is ``(1-s) u + s v + t(1-t) ((1-t) m - t n)``,
    of their values u and v, slopes m and n, and the distance t, with ``s = t^2 (3 - 2t)``. Both
    parts are linear interpolations, the second one of slopes whose sign alternates.
    """
    framed = F.pad(images, [2] * 4, mode="replicate")
    across, down = _slopes(framed, -1), _slopes(framed, -2)
    x, y = x + 2, y + 2
    (smooth_x, weight_x), (smooth_y, weight_y) = _cubic(x), _cubic(y)
    values, slopes = (
        torch.addcmul(sample(plain, smooth_x, at), weight_x, sample(sloped, x, at))
        for plain, sloped, at in ((framed, across, smooth_y), (down, _slopes(down, -1), y))
    )
    return torch.addcmul(values, weight_y, slopes).clamp_(0, 255)  # a cubic overshoots


def _cubic(at: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coordinates for values ``[N, H, W]`` and the weights of slopes, with a channel."""
    before = (at - 0.5).floor()
    t = at - 0.5 - before
    weight = torch.where(before.int() % 2 == 0, t, -t) * (1 - t)
    return before + 0.5 + t * t * (3 - 2 * t), weight.unsqueeze(1)


def _slopes(images: Tensor, axis: int) -> Tensor:
    """Difference of both neighbours, times -1 at odd pixels; wrong at the outermost pixels."""
    signs = 1 - 2 * (torch.arange(images.shape[axis], device=images.device) % 2)
    slopes = images.roll(-1, axis) - images.roll(1, axis)
    return slopes * (signs if axis == -1 else signs.unsqueeze(1))


def _fill_outside(sampled: Tensor, images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Replace pixels whose input coordinates are outside of the images by 0."""
    height, width = images.shape[-2:]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return torch.where(inside.unsqueeze(1), sampled, 0.0)


@AUGMENTATIONS.register("perspective")
class Perspective(Augmentation):
    """torchvision's ``RandomPerspective``: corners move inwards by whole pixels; fill 0.

    Args:
        distortion: Largest displacement of a corner, as a fraction of half the side.
        p: Probability that an image is warped.
        interpolation: ``bilinear``, or ``bicubic`` as in torchvision up to 0.7 (Q25).
    """

    def __init__(
        self, *, distortion: float = 0.5, p: float = 0.5, interpolation: str = "bilinear"
    ) -> None:
        if not (0 <= distortion <= 1 and 0 <= p <= 1):
            raise ValueError(f"distortion ({distortion}) and p ({p}) must be in [0, 1]")
        one_of("interpolation", interpolation, ("bilinear", "bicubic"))
        self.distortion, self.p, self.interpolation = distortion, p, interpolation

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw coefficients a..h of the map from output to input pixels: ``[count, 8]``."""
        reach = int(self.distortion * (size // 2)) + 1
        moves = torch.randint(0, reach, (count, 4, 2), generator=generator).double()
        warped = torch.rand(count, generator=generator) < self.p
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
        x, y = pixel_centres(images)
        scale = g * x + h * y + 1
        source_x, source_y = (a * x + b * y + c) / scale, (d * x + e * y + f) / scale
        interpolate = _sample_bicubic if self.interpolation == "bicubic" else sample
        warped = interpolate(images, source_x, source_y)
        return _fill_outside(warped, images, source_x, source_y)


def homography(start: Tensor, end: Tensor) -> Tensor:
    """Solve for the coefficients ``[N, 8]`` of the projective maps from ``end`` to ``start``.

    These are the same corners ``[N, 4, 2]``, in the output and in the input image. If three end
    points are on a line (possible from a distortion of about 0.65), there is no such map, and the
    identity is returned.
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
        """Draw angles in radians, counter-clockwise, and shifts of 0 pixels: ``[count, 3]``."""
        angles = (2 * torch.rand(count, 1, generator=generator) - 1) * math.radians(self.degrees)
        return F.pad(angles, [0, 2])

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        angles, right, down = parameters.view(-1, 3, 1, 1).unbind(1)
        height, width = images.shape[-2:]
        cos, sin = torch.cos(angles), torch.sin(angles)
        x, y = pixel_centres(images)
        x, y = x - width / 2 - right, y - height / 2 - down
        source_x, source_y = cos * x - sin * y + width / 2, sin * x + cos * y + height / 2
        turned = sample(images, source_x, source_y, "nearest")
        return _fill_outside(turned, images, source_x, source_y)


@AUGMENTATIONS.register("affine")
class Affine(Rotation):
    """torchvision's ``RandomAffine(degrees, translate)``: rotation, then shift.

    ``translate`` are the largest horizontal and vertical shifts, as fractions of the side.
    """

    def __init__(self, *, degrees: float, translate: Sequence[float] = (0.0, 0.0)) -> None:
        super().__init__(degrees=degrees)
        if len(translate) != 2 or not all(0 <= share <= 1 for share in translate):
            raise ValueError(f"translate needs two fractions in [0, 1], got {translate}")
        self.translate = tuple(translate)

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw angles in radians, and shifts right and down in pixels: ``[count, 3]``."""
        drawn, reach = super().draw(count, size, generator), torch.tensor(self.translate) * size
        drawn[:, 1:] = ((2 * torch.rand(count, 2, generator=generator) - 1) * reach).round()
        return drawn
