"""The MNIST family: idx files. Reading them takes no torchvision, which is slow to import."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.archives import ArchiveError, gunzip
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, check_options, not_there
from spinal_repro.errors import UserError

EMNIST_SPLITS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")
# end of the file name: number of dimensions, code of the type in the header, type
KINDS = {"idx1-ubyte": (1, 8, "u1"), "idx3-ubyte": (3, 8, "u1"), "idx2-int": (2, 12, ">i4")}


FOLDERS = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "qmnist": "QMNIST",
    "emnist": "EMNIST",
}


def _file_names(config: DatasetConfig) -> list[str]:
    """Images and labels of train, then of test."""
    train, test, labels = "train", "t10k", "labels-idx1-ubyte"
    if config.source == "qmnist":
        train, test, labels = "qmnist-train", "qmnist-test", "labels-idx2-int"
    if config.source == "emnist":
        split = str(config.options.get("split", ""))
        if split not in EMNIST_SPLITS:
            raise UserError(f"dataset.options.split is '{split}'; EMNIST has {EMNIST_SPLITS}")
        train, test = f"emnist-{split}-train", f"emnist-{split}-test"
    return [f"{part}-{kind}" for part in (train, test) for kind in ("images-idx3-ubyte", labels)]


def _load_idx_family(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """A data set of the MNIST family; its files lie where torchvision keeps them."""
    check_options(config, ["split"] if config.source == "emnist" else [])
    folder, names = root / FOLDERS[config.source] / "raw", _file_names(config)
    for name in names:
        _gunzip(folder / name, download)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and download:
        from spinal_repro.data.fetch import ensure

        ensure(config, root)
        missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise not_there(config, folder, missing)
    parts = []
    for place in (0, 2):
        images, labels = (read_idx(folder / name) for name in names[place : place + 2])
        if len(labels) != len(images):
            raise UserError(
                f"{config.title}: {len(images)} images but {len(labels)} labels in {folder}"
            )
        classes = labels if labels.ndim == 1 else labels[:, 0]  # QMNIST has 8 columns
        numbers = torch.from_numpy(classes.astype(np.int64)) + config.label_offset
        parts.append(ImageSet(torch.from_numpy(images).unsqueeze(1), numbers))
    return Dataset(train=parts[0], test=parts[1])


for _name in FOLDERS:
    SOURCES.register(_name)(_load_idx_family)


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
