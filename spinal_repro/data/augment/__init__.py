"""Augmentation: parameters drawn per image, applied to a whole batch on the device.

torchvision's transforms draw one set of parameters per call, so a batch would be warped alike.
Here the parameters of an epoch are drawn at once on the CPU, the same for every device, and images
are warped by batched grid sampling. The geometry is that of torchvision on PIL images, which the
original scripts used: pixel centres at +0.5, fill 0 outside, clamped edges.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from spinal_repro.data.augment.colors import ColorJitter, RandomErasing
from spinal_repro.data.augment.crops import Crop, HorizontalFlip, PadCrop, ResizedCrop, VerticalFlip
from spinal_repro.data.augment.warps import (
    AUGMENTATIONS,
    Affine,
    Augmentation,
    Perspective,
    Rotation,
    homography,
)

__all__ = [
    "AUGMENTATIONS", "Affine", "Augmentation", "ColorJitter", "Crop", "HorizontalFlip", "PadCrop",
    "Perspective", "RandomErasing", "ResizedCrop", "Rotation", "VerticalFlip",
    "build_augmentations", "homography",
]  # fmt: skip


def build_augmentations(entries: Sequence[Mapping[str, Any]]) -> list[Augmentation]:
    """Build the augmentations of a recipe, in order."""
    return [AUGMENTATIONS.build_entry(entry) for entry in entries]
