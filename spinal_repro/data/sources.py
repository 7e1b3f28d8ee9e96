"""Readers of data sets: from a configuration to images and labels.

A reader is a function ``(config, root, download) -> Dataset``, registered under the name that
``dataset.source`` gives.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.photos import Photos, Pixels
from spinal_repro.data.splits import Indices, content_hash, fingerprints, stratified
from spinal_repro.errors import UserError, unknown
from spinal_repro.registry import Registry


@dataclass(frozen=True)
class ImageSet:
    """Images ``[N, C, H, W]`` uint8, in memory or in a cache file, with labels ``[N]`` int64."""

    images: Tensor | Pixels
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digests(self) -> list[bytes]:
        """A 16-byte digest of each image."""
        assert isinstance(self.images, Tensor)
        return fingerprints(self.images.numpy())

    @property
    def hash(self) -> str:
        """SHA-256 of images and labels."""
        assert isinstance(self.images, Tensor)
        return content_hash(self.images.numpy(), self.labels.numpy())

    def subset(self, indices: Indices) -> "ImageSet":
        """Select images that are in memory."""
        assert isinstance(self.images, Tensor)
        return ImageSet(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Dataset:
    """The published parts of a data set."""

    train: ImageSet | Photos
    test: ImageSet | Photos
    val: ImageSet | Photos | None = None
    classes: Sequence[str] = ()  # names by label, if the data have them
    test_outputs: int | None = None  # see `DatasetConfig`


SOURCES: Registry[Dataset] = Registry("data source")


def load_sources() -> Registry[Dataset]:
    """Return the registry with the readers of all modules."""
    from spinal_repro.data import folder, idx, torchvision_sets  # noqa: F401

    return SOURCES


def load_dataset(
    config: DatasetConfig, root: str | Path, download: bool = False, test: bool = True
) -> Dataset:
    """Load a data set and check it against its configuration.

    ``download`` fetches missing files; without ``test`` the test part is empty.
    """
    dataset = load_sources()[config.source](config, Path(root), download)
    dataset = dataclasses.replace(dataset, test_outputs=config.test_outputs)
    if not test:
        nothing = torch.zeros(0, config.channels, 1, 1, dtype=torch.uint8)
        dataset = dataclasses.replace(dataset, test=ImageSet(nothing, torch.zeros(0).long()))
    if config.num_classes is None:
        config = dataclasses.replace(config, num_classes=len(dataset.classes))
    if config.channels == 3:
        parts = {part: _in_colour(getattr(dataset, part)) for part in ("train", "val", "test")}
        dataset = dataclasses.replace(dataset, **parts)
    for part in ("train", "val", "test"):
        images, size = getattr(dataset, part), getattr(config, f"{part}_size")
        if (images is not None or size is not None) and (test or part != "test"):
            _check(images, config, part, size)
    return dataset


def _in_colour(part: ImageSet | Photos | None) -> Any:
    """Expand grey images to three channels without copying."""
    if isinstance(part, ImageSet) and isinstance(part.images, Tensor) and part.images.shape[1] == 1:
        return ImageSet(part.images.expand(-1, 3, -1, -1), part.labels)
    return part


def _check(
    images: ImageSet | Photos | None, config: DatasetConfig, part: str, size: int | None
) -> None:
    where = f"{config.title} ({part})"
    count = 0 if images is None else len(images)
    if images is None or size not in (None, count):
        raise UserError(
            f"{where} has {count} images, expected {size}; if the files are correct, set "
            f"dataset.{part}_size={count or 'null'}"
        )
    if count == 0:
        raise UserError(f"{where} has no images")
    if isinstance(images, ImageSet) and isinstance(images.images, Tensor):
        _check_tensors(images.images, images.labels, config, where)
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= config.outputs:
        raise UserError(
            f"{where} has labels {low}..{high}, outside the {config.outputs} outputs; "
            f"check dataset.num_classes, dataset.num_outputs and dataset.label_offset"
        )


def _check_tensors(pixels: Tensor, labels: Tensor, config: DatasetConfig, where: str) -> None:
    """Check types and shapes, for readers that users write."""
    if pixels.dtype != torch.uint8:
        raise UserError(f"{where} has pixels of {pixels.dtype}; a reader returns torch.uint8")
    if labels.dtype != torch.int64 or labels.shape != pixels.shape[:1]:
        raise UserError(
            f"{where} has labels of {labels.dtype} and shape {list(labels.shape)} for images of "
            f"shape {list(pixels.shape)}; a reader returns one torch.int64 per image"
        )
    found, side = "x".join(map(str, pixels.shape[1:])), config.image_size
    if found != f"{config.channels}x{side}x{side}":
        raise UserError(
            f"{where} has images of {found}, expected {config.channels}x{side}x{side}; check "
            f"dataset.channels and dataset.image_size"
        )


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
    images = large.round().to(torch.uint8)
    labels = torch.from_numpy(raw.target).long()
    train, test = stratified(labels.numpy(), fraction=0.2, seed=0)
    everything = ImageSet(images, labels)
    return Dataset(everything.subset(train), everything.subset(test))


def check_options(config: DatasetConfig, known: Iterable[str]) -> None:
    """Refuse keys of ``dataset.options`` that the reader does not know."""
    for key in config.options:
        if key not in known:
            raise unknown(f"option of the data set {config.name}", str(key), known)
