"""Sources: from a data-set name to images and labels in memory.

A source is a function ``(config, root, download) -> Dataset`` registered under the name that
``dataset.source`` gives. Reading a data set that is missing or damaged ends in one message that
names the folder and the command to run.
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from spinal_repro.config import DatasetConfig
from spinal_repro.data.splits import stratified
from spinal_repro.errors import UserError, unknown
from spinal_repro.registry import Registry


@dataclass(frozen=True)
class ImageSet:
    """Images ``[N, C, H, W]`` uint8 with labels ``[N]`` int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """The published training and test parts of a data set."""

    train: ImageSet
    test: ImageSet


Source = Callable[[DatasetConfig, Path, bool], Dataset]
SOURCES: Registry[Dataset] = Registry("data source")


@cache
def load_sources() -> Registry[Dataset]:
    """The registry with the sources of the other files of this folder in it."""
    for module in ("cifar", "folder", "idx", "svhn"):
        importlib.import_module(f"spinal_repro.data.{module}")
    return SOURCES


def load_dataset(config: DatasetConfig, root: str | Path, download: bool = False) -> Dataset:
    """Load a data set and check it against its configuration.

    Args:
        config: What to load and what must be found.
        root: The folder data sets lie in.
        download: Fetch what is missing first.

    Raises:
        UserError: where files are missing or damaged, or hold other than what is expected.
    """
    known = (
        SOURCES if config.source in SOURCES.names() else load_sources()
    )  # those need torchvision
    dataset = known[config.source](config, Path(root), download)
    parts = (("train", dataset.train, config.train_size), ("test", dataset.test, config.test_size))
    for part, images, size in parts:
        where = f"{config.title} ({part})"
        if len(images) != size:
            raise UserError(
                f"{where} has {len(images)} images where {size} are expected; if the files are "
                f"right, pass dataset.{part}_size={len(images)}"
            )
        shape = (config.channels, config.image_size, config.image_size)
        if tuple(images.images.shape[1:]) != shape:
            found = "x".join(map(str, images.images.shape[1:]))
            raise UserError(
                f"{where} holds images of {found}, expected {'x'.join(map(str, shape))}"
            )
        low, high = int(images.labels.min()), int(images.labels.max())
        if low < 0 or high >= config.outputs:
            raise UserError(
                f"{where} has labels {low}..{high}, outside the {config.outputs} outputs; "
                f"check dataset.num_classes, dataset.num_outputs and dataset.label_offset"
            )
    return dataset


@SOURCES.register("digits")
def digits(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """scikit-learn's handwritten digits: 1,797 real 8x8 images, enlarged to the configured size.

    The package has no split; a fixed stratified fifth is the test part.
    """
    check_options(config, [])
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = torch.from_numpy(raw.images).float().mul(255 / 16).unsqueeze(1)
    size = (config.image_size, config.image_size)
    large = torch.nn.functional.interpolate(small, size, mode="bilinear", align_corners=False)
    images = large.round().to(torch.uint8)
    labels = torch.from_numpy(raw.target).long()
    train, test = stratified(labels.numpy(), fraction=0.2, seed=0)
    return Dataset(
        ImageSet(images[train], labels[train]),
        ImageSet(images[test], labels[test]),
    )


def check_options(config: DatasetConfig, known: Iterable[str]) -> None:
    """Refuse options that a source does not have.

    Raises:
        UserError: for an unknown key of ``dataset.options``.
    """
    for key in config.options:
        if key not in known:
            raise unknown(f"option of the data set {config.name}", str(key), known)


def not_there(config: DatasetConfig, folder: Path, missing: list[str]) -> UserError:
    """The error for files that are missing and may be fetched."""
    return UserError(
        f"{config.title} is not in {folder.resolve()} (missing {', '.join(missing)}). "
        f"Fetch it with: spinal-train dataset={config.name} data.download=true; or say "
        f"where it lies: data.root=FOLDER or the environment variable SPINAL_DATA; more with: "
        f"spinal data info {config.name}"
    )


def check_sums(
    config: DatasetConfig, root: Path, folder: Path, sums: dict[str, str], download: bool
) -> None:
    """See that files are there and unchanged, and fetch them where that is wanted.

    Args:
        config: The data set.
        root: The folder data sets lie in.
        folder: The folder of the files.
        sums: File name to MD5 sum.
        download: Fetch what is missing first.

    Raises:
        UserError: where a file is missing or its sum is another one.
    """
    from spinal_repro.data.verify import sum_of

    def missing() -> list[str]:
        return [name for name in sums if not (folder / name).is_file()]

    if missing() and download:
        from spinal_repro.data.fetch import ensure

        ensure(config, root)
    if missing():
        raise not_there(config, folder, missing())
    for name, md5 in sums.items():
        if sum_of(folder / name, "md5") != md5:
            raise UserError(
                f"{name} is damaged (its MD5 sum is not {md5}); delete {folder / name} and fetch "
                f"it again with data.download=true"
            )
