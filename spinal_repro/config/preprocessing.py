"""How stored images are brought to one size, as a recipe says it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spinal_repro.errors import UserError, one_of, unknown
from spinal_repro.registry import merge_onto

if TYPE_CHECKING:
    from spinal_repro.config.schema import RecipeConfig


MAX_SIDE = 4096  # of an image, in pixels


def refuse_constants(std: Sequence[float], where: str) -> None:
    """Refuse a std that is not above 0.

    Args:
        std: Of pixels in [0, 1], one or one a channel.
        where: What says it, for the message.

    Raises:
        UserError: for a std that is not above 0.
    """
    if any(not value > 0 for value in std):
        raise UserError(f"std in {where} must be above 0, got {list(std)}")


@dataclass(frozen=True)
class Preprocessing:
    """How stored images become images of one size, once, before anything random.

    Attributes:
        resize: A number for the shorter side, or ``[height, width]`` whatever the shape; null
            leaves the size.
        crop: Side of the centre square kept; null keeps all.
        interpolation: ``bilinear`` or ``bicubic``.
    """

    resize: Any = None
    crop: int | None = None
    interpolation: str = "bilinear"

    @classmethod
    def of(cls, recipe: "RecipeConfig", part: str) -> "Preprocessing":
        """What a recipe does to one part, ``train`` or ``eval``.

        Raises:
            UserError: for an unknown part, key or ill-typed value.
        """
        for name in recipe.prepare:
            if name not in ("train", "eval"):
                raise unknown("part of recipe.prepare", str(name), ("train", "eval"))
        where = f"recipe.prepare.{part}"
        made = cls(**merge_onto(cls, recipe.prepare.get(part) or {}, where=where))
        sizes = made.resize if isinstance(made.resize, list) else [made.resize]
        whole = all(isinstance(size, int) and 0 < size <= MAX_SIDE for size in sizes)
        if made.resize is not None and not (whole and len(sizes) in (1, 2)):
            raise UserError(
                f"{where}.resize must be N or [HEIGHT, WIDTH], each from 1 to {MAX_SIDE}, "
                f"got {made.resize}"
            )
        if len(set(sizes)) == 2 and made.crop is None:
            raise UserError(
                f"{where}.resize {made.resize} is not square; give {where}.crop as well"
            )
        if made.crop is not None and not 0 < made.crop <= MAX_SIDE:
            raise UserError(f"{where}.crop must lie between 1 and {MAX_SIDE}, got {made.crop}")
        one_of(f"{where}.interpolation", made.interpolation, ("bilinear", "bicubic"))
        return made

    @property
    def size(self) -> int | None:
        """Side of the square that results; null where it is the stored one."""
        if self.crop is not None or self.resize is None:
            return self.crop
        if isinstance(self.resize, list):
            return int(self.resize[0])
        return int(self.resize)
