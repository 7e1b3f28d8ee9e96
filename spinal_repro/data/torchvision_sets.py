"""CIFAR-10, CIFAR-100, SVHN and STL-10, from the files that torchvision reads.

CIFAR's files are pickles, which can run code: a file is opened only if its checksum is the
published one.
"""

import pickle
from collections.abc import Callable
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

Arrays = tuple[NDArray[np.uint8], NDArray[np.integer]]  # images [N, 3, S, S] and labels [N]


def _unpickled(path: Path) -> Any:
    return pickle.loads(path.read_bytes(), encoding="latin1")


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


_KINDS: dict[str, tuple[Callable[[list[Path]], Arrays], list[str], list[str]]] = {
    "cifar10": (_cifar, [f"data_batch_{number}" for number in range(1, 6)], ["test_batch"]),
    "cifar100": (_cifar, ["train"], ["test"]),
    "svhn": (_svhn, ["train_32x32.mat"], ["test_32x32.mat"]),
    "stl10": (_stl10, ["train_X.bin", "train_y.bin"], ["test_X.bin", "test_y.bin"]),
}
# pickles of class names, and the key
_CLASSES = {"cifar10": ("batches.meta", "label_names"), "cifar100": ("meta", "fine_label_names")}


def _load(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    (read, train, test), entry = _KINDS[config.source], find_entry(config.source)
    classes, key = _CLASSES.get(config.source, ("", ""))
    check_options(config, [])
    names = [*train, *test, *([classes] if classes else [])]
    folder = entry.path(root)
    require_files(config, root, folder, names, download)
    for file in entry.contents:
        if file.name in names and (wrong := file.checksum_mismatch(folder / file.name)):
            raise UserError(
                f"{folder / file.name} is damaged: {wrong}; replace it with: "
                f"spinal data fetch {entry.name}"
            )
    parts: dict[str, Any] = {}
    for part, files in (("train", train), ("test", test)):
        images, labels = read([folder / name for name in files])
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        parts[part] = ImageSet(pixels, torch.from_numpy(labels) + config.label_offset)
    return Dataset(**parts, classes=_unpickled(folder / classes)[key] if classes else ())


for _name in _KINDS:
    SOURCES.register(_name)(_load)
