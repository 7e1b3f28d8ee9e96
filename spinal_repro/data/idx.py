"""The MNIST family: idx files. Reading them takes no torchvision, which is slow to import."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spinal_repro.data.archives import ArchiveError, gunzip
from spinal_repro.data.idx_files import check_idx, read_idx
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, check_options, not_there
from spinal_repro.errors import UserError
from spinal_repro.schema import DatasetConfig

EMNIST_SPLITS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")


@dataclass(frozen=True)
class _IdxFamily:
    """Folder and file names: images and labels of train, then of test."""

    folder: str
    files: Callable[[DatasetConfig], list[str]]


def _four(pattern: str, test: str = "test", labels: str = "labels-idx1-ubyte") -> list[str]:
    kinds = ("images-idx3-ubyte", labels)
    return [pattern.format(f"{part}-{kind}") for part in ("train", test) for kind in kinds]


def _split(config: DatasetConfig) -> str:
    return str(config.options.get("split", ""))


_FAMILIES = {
    "mnist": _IdxFamily("MNIST", lambda c: _four("{}", test="t10k")),
    "fashion_mnist": _IdxFamily("FashionMNIST", lambda c: _four("{}", test="t10k")),
    "kmnist": _IdxFamily("KMNIST", lambda c: _four("{}", test="t10k")),
    "qmnist": _IdxFamily("QMNIST", lambda c: _four("qmnist-{}", labels="labels-idx2-int")),
    "emnist": _IdxFamily("EMNIST", lambda c: _four(f"emnist-{_split(c)}-{{}}")),
}


def _load_idx_family(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """A data set of the MNIST family; its files lie where torchvision keeps them."""
    family = _FAMILIES[config.source]
    check_options(config, ["split"] if config.source == "emnist" else [])
    if config.source == "emnist" and _split(config) not in EMNIST_SPLITS:
        raise UserError(f"dataset.options.split is '{_split(config)}'; EMNIST has {EMNIST_SPLITS}")
    folder, names = root / family.folder / "raw", family.files(config)
    damaged = _unpack_gzipped(folder, names)
    missing = [name for name in names if not (folder / name).is_file()]
    for name in names:
        if name not in missing:
            check_idx(folder / name)
    if missing and download:
        from spinal_repro.data.fetch import ensure

        ensure(config, root)
    elif damaged is not None:
        raise damaged
    if any(not (folder / name).is_file() for name in names):
        raise not_there(config, folder, missing)
    for name in missing:  # fetched by now
        check_idx(folder / name)
    try:
        arrays = [torch.from_numpy(read_idx(folder / name)) for name in names]
    except (OSError, ValueError, MemoryError) as error:
        raise UserError(f"{config.title} cannot be read from {folder}: {error}") from error
    train_images, train_labels, test_images, test_labels = arrays
    return Dataset(
        train=_images(train_images, train_labels, config, folder),
        test=_images(test_images, test_labels, config, folder),
    )


for _name in _FAMILIES:
    SOURCES.register(_name)(_load_idx_family)


def _images(pixels: Tensor, labels: Tensor, config: DatasetConfig, folder: Path) -> ImageSet:
    labels = labels if labels.ndim == 1 else labels[:, 0]  # QMNIST has 8 columns
    if len(labels) != len(pixels):
        raise UserError(
            f"{config.title}: {len(pixels)} images but {len(labels)} labels in {folder}"
        )
    return ImageSet(pixels.unsqueeze(1), labels.long() + config.label_offset)


def _unpack_gzipped(folder: Path, names: list[str]) -> UserError | None:
    """Unpack files that lie there gzipped only, as other packages ship them.

    Returns:
        What to say of a gzipped file that is damaged, an interrupted download for instance: it
        matters only where the file is not fetched anew.
    """
    damaged = None
    for name in names:
        packed, plain = folder / f"{name}.gz", folder / name
        if packed.is_file() and not plain.exists():
            partial = folder / f".{name}.{os.getpid()}.partial"  # other runs may unpack it too
            try:
                gunzip(packed, partial)
                partial.replace(plain)
            except ArchiveError as error:
                damaged = UserError(
                    f"{error}; delete {packed} and fetch it again with data.download=true"
                )
            except OSError as error:
                raise UserError(f"{packed} cannot be unpacked: {error}") from error
            finally:
                partial.unlink(missing_ok=True)
    return damaged
