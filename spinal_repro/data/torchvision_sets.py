"""CIFAR-10, CIFAR-100, SVHN and STL-10, from the files that torchvision reads.

CIFAR's files are pickles, which can run code: a file is opened only if its checksum is the
published one.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.catalog import find_entry
from spinal_repro.data.install import require_files
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, check_options
from spinal_repro.errors import UserError

Arrays = tuple[NDArray[np.uint8], NDArray[np.integer]]


@dataclass(frozen=True)
class _Kind:
    """The files of a data set and their reader."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    read: Callable[[list[Path]], Arrays]  # images [N, 3, S, S] and labels [N]
    names: tuple[str, str] | None = None  # a pickle with class names, and its key


def _unpickled(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        table: dict[str, Any] = pickle.load(file, encoding="latin1")
    return table


def _cifar(paths: list[Path]) -> Arrays:
    batches = [_unpickled(path) for path in paths]
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    key = "labels" if "labels" in batches[0] else "fine_labels"
    return images, np.concatenate([batch[key] for batch in batches])


def _svhn(paths: list[Path]) -> Arrays:
    from scipy.io import loadmat

    table = loadmat(paths[0])
    labels = table["y"].astype(np.int64).squeeze(1)
    return table["X"].transpose(3, 2, 0, 1), labels % 10  # 0 is written as 10


def _stl10(paths: list[Path]) -> Arrays:
    images, labels = (np.fromfile(path, np.uint8) for path in paths)
    return images.reshape(-1, 3, 96, 96).transpose(0, 1, 3, 2), labels.astype(np.int64) - 1


_KINDS = {
    "cifar10": _Kind(
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        _cifar,
        ("batches.meta", "label_names"),
    ),
    "cifar100": _Kind(("train",), ("test",), _cifar, ("meta", "fine_label_names")),
    "svhn": _Kind(("train_32x32.mat",), ("test_32x32.mat",), _svhn),
    "stl10": _Kind(("train_X.bin", "train_y.bin"), ("test_X.bin", "test_y.bin"), _stl10),
}


def _load(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    kind, entry = _KINDS[config.source], find_entry(config.source)
    check_options(config, [])
    names = [*kind.train, *kind.test, *([kind.names[0]] if kind.names else [])]
    folder = entry.path(root)
    require_files(config, root, folder, names, download)
    for file in entry.contents:
        if file.name in names and (wrong := file.checksum_mismatch(folder / file.name)):
            raise UserError(
                f"{folder / file.name} is damaged: {wrong}; replace it with: "
                f"spinal data fetch {entry.name}"
            )
    parts: dict[str, Any] = {}
    for part, files in (("train", kind.train), ("test", kind.test)):
        images, labels = kind.read([folder / name for name in files])
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        parts[part] = ImageSet(pixels, torch.from_numpy(labels) + config.label_offset)
    classes = _unpickled(folder / kind.names[0])[kind.names[1]] if kind.names else ()
    return Dataset(**parts, classes=classes)


for _name in _KINDS:
    SOURCES.register(_name)(_load)
