"""The MNIST family: idx files. Reading them takes no torchvision, which is slow to import."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spinal_repro.data.archives import ArchiveError, gunzip
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, check_options, not_there
from spinal_repro.errors import UserError
from spinal_repro.schema import DatasetConfig

EMNIST_SPLITS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")
# end of the file name: number of dimensions, code of the type in the header, type
KINDS = {"idx1-ubyte": (1, 8, "u1"), "idx3-ubyte": (3, 8, "u1"), "idx2-int": (2, 12, ">i4")}


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
    for name in names:
        _gunzip(folder / name, download)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and download:
        from spinal_repro.data.fetch import ensure

        ensure(config, root)
    if any(not (folder / name).is_file() for name in names):
        raise not_there(config, folder, missing)
    arrays = [read_idx(folder / name) for name in names]
    return Dataset(
        train=_images(arrays[0], arrays[1], config, folder),
        test=_images(arrays[2], arrays[3], config, folder),
    )


for _name in _FAMILIES:
    SOURCES.register(_name)(_load_idx_family)


def _images(
    pixels: NDArray[Any], labels: NDArray[Any], config: DatasetConfig, folder: Path
) -> ImageSet:
    labels = labels if labels.ndim == 1 else labels[:, 0]  # QMNIST has 8 columns
    if len(labels) != len(pixels):
        raise UserError(
            f"{config.title}: {len(pixels)} images but {len(labels)} labels in {folder}"
        )
    return ImageSet(
        torch.from_numpy(pixels).unsqueeze(1),
        torch.from_numpy(labels.astype(np.int64)) + config.label_offset,
    )


def _gunzip(path: Path, download: bool) -> None:
    """Unpack a file that lies there gzipped only, as other packages ship it."""
    packed = path.with_name(f"{path.name}.gz")
    if path.exists() or not packed.is_file():
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # other runs may unpack it too
    try:
        gunzip(packed, partial)
        partial.replace(path)
    except ArchiveError as error:
        if not download:  # otherwise the file is fetched again
            raise UserError(
                f"{error}; delete {packed} and fetch it again with data.download=true"
            ) from error


def read_idx(path: Path) -> NDArray[Any]:
    """The array in an idx file, of the type and dimensions that the file name says.

    Raises:
        UserError: where the file cannot be read, is truncated or is another file.
    """
    dims, code, dtype = next(kind for end, kind in KINDS.items() if path.name.endswith(end))
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    sizes, values = content[4 : 4 + 4 * dims], content[4 + 4 * dims :]
    shape = sizes.view(">u4").tolist() if len(sizes) == 4 * dims else [0]
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if content[:4].tolist() != [0, 0, code, dims] or not 0 < len(values) == expected:
        raise UserError(
            f"{path.name} is damaged or another file: it should be an idx file of {dims} "
            f"dimensions, complete to the last byte; delete {path} and fetch it again with "
            f"data.download=true"
        )
    return values.view(dtype).reshape(shape).astype(np.dtype(dtype).newbyteorder("="), copy=False)
