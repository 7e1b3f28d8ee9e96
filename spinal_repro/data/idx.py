"""The MNIST family: idx files. torchvision is slow to import and not needed to read them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.catalog import find_entry
from spinal_repro.data.install import require_files
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, check_options
from spinal_repro.errors import UserError, one_of

SETS = ("mnist", "fashion_mnist", "kmnist", "qmnist", "emnist")
EMNIST_SPLITS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")
# End of the file name: number of dimensions, type code in the header, type.
KINDS = {"idx1-ubyte": (1, 8, "u1"), "idx3-ubyte": (3, 8, "u1"), "idx2-int": (2, 12, ">i4")}


def _file_names(config: DatasetConfig) -> list[str]:
    """Images and labels of train, then of test."""
    train, test, labels = "train", "t10k", "labels-idx1-ubyte"
    if config.source == "qmnist":
        train, test, labels = "qmnist-train", "qmnist-test", "labels-idx2-int"
    if config.source == "emnist":
        split = str(config.options.get("split", ""))
        one_of("dataset.options.split", split, EMNIST_SPLITS)
        train, test = f"emnist-{split}-train", f"emnist-{split}-test"
    return [f"{part}-{kind}" for part in (train, test) for kind in ("images-idx3-ubyte", labels)]


def _load(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """Read images and labels from where torchvision keeps them, or from ``options.folder``."""
    check_options(config, ["folder", "split"] if config.source == "emnist" else ["folder"])
    entry = find_entry("emnist_letters" if config.source == "emnist" else config.source)
    folder = root / str(config.options.get("folder") or entry.about.folder)
    names = _file_names(config)
    require_files(config, root, folder, names, download)
    parts = []
    for place in (0, 2):
        images, labels = (read_idx(folder / name) for name in names[place : place + 2])
        if len(labels) != len(images):
            raise UserError(
                f"{config.title}: {len(images)} images but {len(labels)} labels in {folder}; "
                f"compare the files with: spinal data verify {config.name}"
            )
        classes = labels if labels.ndim == 1 else labels[:, 0]  # QMNIST has 8 columns
        numbers = torch.from_numpy(classes.astype(np.int64)) + config.label_offset
        parts.append(ImageSet(torch.from_numpy(images).unsqueeze(1), numbers))
    return Dataset(train=parts[0], test=parts[1])


for _name in SETS:
    SOURCES.register(_name)(_load)


def read_idx(path: Path) -> NDArray[Any]:
    """Read an idx file of the type and dimensions that its name gives."""
    dims, code, dtype = next(kind for end, kind in KINDS.items() if path.name.endswith(end))
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    sizes, values = content[4 : 4 + 4 * dims], content[4 + 4 * dims :]
    shape = sizes.view(">u4").tolist() if len(sizes) == 4 * dims else [0]
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if content[:4].tolist() != [0, 0, code, dims] or not 0 < len(values) == expected:
        raise UserError(
            f"{path.name} is damaged: it is not a complete idx file with {dims} dimensions; "
            f"delete {path} and run the command again with data.download=true"
        )
    return values.view(dtype).reshape(shape).astype(np.dtype(dtype).newbyteorder("="), copy=False)
