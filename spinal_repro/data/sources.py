"""Readers of data sets: from a configuration to images and labels.

A reader is a function ``(config, root, download) -> Dataset``, registered under the name that
``dataset.source`` gives.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.catalog import PARTS, entry_for
from spinal_repro.data.photos import Photos, columns_of
from spinal_repro.data.splits import Indices, stratified
from spinal_repro.errors import UserError, check_known
from spinal_repro.registry import Registry


@dataclass(frozen=True)
class ImageSet:
    """Images ``[N, C, H, W]`` uint8, or float32 features ``[N, F, 1, 1]``, as in `Photos`."""

    images: Any  # a tensor, or an array in a cache file
    labels: Tensor
    weights: Tensor | None = None
    groups: Tensor | None = None
    folds: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digests(self) -> list[bytes]:
        """A 16-byte digest of each image."""
        images = np.ascontiguousarray(self.images)
        return [hashlib.blake2b(image, digest_size=16).digest() for image in images]

    @property
    def hash(self) -> str:
        """SHA-256 of shapes, types and values, which identifies the version of a data set."""
        digest = hashlib.sha256()
        for array in map(np.ascontiguousarray, (self.images, *columns_of(self).values())):
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(array.data)
        return digest.hexdigest()

    def subset(self, indices: Indices) -> "ImageSet":
        """Select some of the images."""
        return replace(self, images=self.images[indices], **columns_of(self, indices))


@dataclass(frozen=True)
class Dataset:
    """The published parts of a data set."""

    train: ImageSet | Photos
    test: ImageSet | Photos
    val: ImageSet | Photos | None = None
    classes: Sequence[str] = ()  # names by label, if the data have them
    left_out: Counter[str] = field(default_factory=Counter)  # files that are not images, by suffix
    features: Sequence[str] = ()  # names of the channels, if they are columns of a table

    @cached_property
    def pool(self) -> ImageSet | Photos:
        """The images of all parts together, for cross-validation."""
        parts: list[Any] = [images for p in PARTS if (images := getattr(self, p)) is not None]
        joined: Any = {k: torch.cat([getattr(p, k) for p in parts]) for k in columns_of(parts[0])}
        if isinstance(parts[0], Photos):
            joined["paths"] = [path for part in parts for path in part.paths]
        else:
            joined["images"] = torch.cat([part.images for part in parts])
        return replace(parts[0], **joined)


SOURCES: Registry[Dataset] = Registry("data source")


def load_sources() -> Registry[Dataset]:
    """Return the registry with the readers of all modules."""
    from spinal_repro.data import containers, folder, torchvision_sets  # noqa: F401

    return SOURCES


def load_dataset(
    config: DatasetConfig, root: str | Path, download: bool = False, test: bool = True
) -> Dataset:
    """Load a data set and check it against its configuration.

    ``download`` fetches missing files; without ``test`` the test part is empty. Class names are
    those of the catalog, if it has them: folders may be called n0, n1 ...
    """
    dataset = load_sources()[config.source](config, Path(root), download)
    entry, classes = entry_for(config), dataset.classes
    if entry and len(classes) in (0, len(entry.about.classes)):
        classes = entry.about.classes or classes
    if config.num_classes is None:
        config = replace(config, num_classes=len(classes))
    config = replace(config, **counted_shape(config, dataset))
    parts: dict[str, Any] = {part: getattr(dataset, part) for part in PARTS}
    for part, images in parts.items():
        if part == "test" and not test:
            nothing = torch.zeros(0, config.channels, 1, 1, dtype=torch.uint8)
            parts[part] = ImageSet(nothing, torch.zeros(0).long())
        elif images is not None or getattr(config, f"{part}_size") is not None:
            parts[part] = checked_part(images, config, part)
    return replace(dataset, **parts, classes=classes)


def counted_shape(config: DatasetConfig, dataset: Dataset) -> dict[str, Any]:
    """Channels and size of images in memory, where the configuration leaves the size open."""
    if config.image_size is not None or isinstance(dataset.train, Photos):
        return {}
    _, channels, _, side = dataset.train.images.shape
    return {"channels": max(channels, config.channels), "image_size": side}


def checked_part(
    images: ImageSet | Photos | None, config: DatasetConfig, part: str
) -> ImageSet | Photos:
    """Check one part, and expand grey images to three channels without copying."""
    where, size = f"{config.title} ({part})", getattr(config, f"{part}_size")
    count = 0 if images is None else len(images)
    if images is None or size not in (None, count):
        fix = f"if the files are correct, set dataset.{part}_size={count or 'null'}"
        raise UserError(f"{where} has {count} images, expected {size}; {fix}")
    if count == 0:
        raise UserError(f"{where} has no images")
    if isinstance(images, ImageSet):
        if config.channels == 3 and images.images.shape[1] == 1:
            images = replace(images, images=images.images.expand(-1, 3, -1, -1))
        kind = torch.float32 if config.image_size == 1 else torch.uint8  # features, or pixels
        shape = [count, config.channels, config.image_size, config.image_size]
        expected = f"images {shape} of {kind} and labels {[count]} of torch.int64"
        pixels, labels = (f"{list(t.shape)} of {t.dtype}" for t in (images.images, images.labels))
        if (found := f"images {pixels} and labels {labels}") != expected:
            fix = "check dataset.channels and dataset.image_size"
            raise UserError(f"{where} has {found}, expected {expected}; {fix}")
    low, high = int(images.labels.min()), int(images.labels.max())
    outputs = (part == "test" and config.test_outputs) or config.outputs
    if low < 0 or high >= outputs:
        raise UserError(
            f"{where} has labels {low}..{high}, outside the {outputs} outputs; check "
            f"dataset.num_classes, num_outputs, test_outputs and label_offset"
        )
    return images


@SOURCES.register("digits")
def digits(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """scikit-learn's handwritten digits: 1,797 images of 8x8, enlarged to the configured size.

    They have no published split; a fixed stratified fifth is the test part.
    """
    check_options(config, [])
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = torch.from_numpy(raw.images).float().mul(255 / 16).unsqueeze(1)
    size = config.image_size
    large = torch.nn.functional.interpolate(small, size, mode="bilinear", align_corners=False)
    images = ImageSet(large.round().to(torch.uint8), torch.from_numpy(raw.target).long())
    train, test = stratified(images.labels.numpy(), fraction=0.2, seed=0)
    return Dataset(images.subset(train), images.subset(test))


def check_options(config: DatasetConfig, known: Iterable[str]) -> None:
    """Refuse keys of ``dataset.options`` that the reader does not know."""
    for key in config.options:
        check_known(f"option of the data set {config.name}", key, known)
