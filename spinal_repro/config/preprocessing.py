"""Preprocessing of a recipe: resize and centre crop, or the whole photograph."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spinal_repro.errors import UserError, check_known, one_of
from spinal_repro.registry import merge_onto

MAX_SIDE = 4096  # of an image, in pixels


@dataclass(frozen=True)
class Preprocessing:
    """Deterministic resize and centre crop of stored images, before any augmentation.

    ``fit`` keeps whole photographs of any shape, for a random resized crop: those that are larger
    than a square of that side are scaled down to fit into it.
    """

    resize: Any = None  # N: the shorter side in pixels; [height, width]; None: unchanged
    crop: int | None = None  # side of the centre crop in pixels; None: no crop
    interpolation: str = "bilinear"  # or bicubic, for image files alone
    fit: int | None = None  # pixels; for image files in training, without resize and crop
    pad: bool = False  # image files to a square, with black, before they are resized

    @classmethod
    def of(cls, prepare: Mapping[str, Any], part: str) -> "Preprocessing":
        """Read ``recipe.prepare`` for one part of the data, ``train`` or ``eval``."""
        for name in prepare:
            check_known("part of recipe.prepare", name, ("train", "eval"))
        where = f"recipe.prepare.{part}"
        made = cls(**merge_onto(cls, prepare.get(part) or {}, where=where))
        sizes = made.resize if isinstance(made.resize, list) else [made.resize]
        whole = all(isinstance(size, int) and 0 < size <= MAX_SIDE for size in sizes)
        if made.resize is not None and not (whole and len(sizes) in (1, 2)):
            raise UserError(
                f"{where}.resize must be N or [HEIGHT, WIDTH] up to {MAX_SIDE}, got {made.resize}"
            )
        if len(set(sizes)) == 2 and made.crop is None:
            raise UserError(f"{where}.resize {made.resize} is not square; give {where}.crop too")
        for name in ("crop", "fit"):
            side = getattr(made, name)
            if side is not None and not 0 < side <= MAX_SIDE:
                raise UserError(f"{where}.{name} must be from 1 to {MAX_SIDE}, got {side}")
        if made.crop is not None and made.crop > min(filter(None, sizes), default=made.crop):
            raise UserError(
                f"{where}.crop={made.crop} is above {where}.resize: set {where}.crop={min(sizes)}"
            )
        if made.fit and (part != "train" or made.resize or made.crop or made.pad):
            raise UserError(f"{where}.fit is for training alone, without resize, crop and pad")
        one_of(f"{where}.interpolation", made.interpolation, ("bilinear", "bicubic"))
        return made

    @property
    def size(self) -> int | None:
        """Side of the resulting square in pixels; None if images keep their size."""
        if self.resize is None or self.crop is not None:
            return self.fit or self.crop
        return int(self.resize[0] if isinstance(self.resize, list) else self.resize)
