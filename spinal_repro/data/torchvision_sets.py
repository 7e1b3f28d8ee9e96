"""The MNIST family, CIFAR-10, CIFAR-100, SVHN and STL-10, from the files that torchvision reads.

torchvision is slow to import and not needed to read them. CIFAR's files are pickles, which can run
code: a file is opened only if its checksum is the published one.
"""

import math
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
from spinal_repro.errors import UserError, one_of
from spinal_repro.io import read_bytes

Arrays = tuple[NDArray[np.uint8], NDArray[Any]]  # images [N, C, S, S] and labels [N]
Files = tuple[Callable[[list[Path]], Arrays], list[str], list[str]]  # reader, train and test files

MNIST_FAMILY = ("mnist", "fashion_mnist", "kmnist", "qmnist", "emnist")
EMNIST_SPLITS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")
# End of the file name: number of dimensions, type code in the header, type.
_IDX = {"idx1-ubyte": (1, 8, "u1"), "idx3-ubyte": (3, 8, "u1"), "idx2-int": (2, 12, ">i4")}


def read_idx(path: Path) -> NDArray[Any]:
    """Read an idx file of the type and dimensions that its name gives."""
    dims, code, dtype = next(kind for end, kind in _IDX.items() if path.name.endswith(end))
    content = np.frombuffer(bytearray(read_bytes(path)), np.uint8)  # a copy can be written to
    sizes, values = content[4 : 4 + 4 * dims], content[4 + 4 * dims :]
    shape = sizes.view(">u4").tolist() if len(sizes) == 4 * dims else [0]
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if content[:4].tolist() != [0, 0, code, dims] or not 0 < len(values) == expected:
        raise UserError(
            f"{path.name} is damaged: it is not a complete idx file with {dims} dimensions; "
            f"delete {path} and run the command again with data.download=true"
        )
    return values.view(dtype).reshape(shape).astype(np.dtype(dtype).newbyteorder("="), copy=False)


def _idx(paths: list[Path]) -> Arrays:
    images, labels = map(read_idx, paths)
    return images[:, None], labels if labels.ndim == 1 else labels[:, 0]  # QMNIST has 8 columns


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


_KINDS: dict[str, Files] = {
    "cifar10": (_cifar, [f"data_batch_{number}" for number in range(1, 6)], ["test_batch"]),
    "cifar100": (_cifar, ["train"], ["test"]),
    "svhn": (_svhn, ["train_32x32.mat"], ["test_32x32.mat"]),
    "stl10": (_stl10, ["train_X.bin", "train_y.bin"], ["test_X.bin", "test_y.bin"]),
}
# pickles of class names, and the key
_CLASSES = {"cifar10": ("batches.meta", "label_names"), "cifar100": ("meta", "fine_label_names")}


def _files(config: DatasetConfig) -> Files:
    if config.source in _KINDS:
        return _KINDS[config.source]
    train, test, labels = "train", "t10k", "labels-idx1-ubyte"
    if config.source == "qmnist":
        train, test, labels = "qmnist-train", "qmnist-test", "labels-idx2-int"
    if config.source == "emnist":
        split = str(config.options.get("split", ""))
        one_of("dataset.options.split", split, EMNIST_SPLITS)
        train, test = f"emnist-{split}-train", f"emnist-{split}-test"
    ends = ("images-idx3-ubyte", labels)
    return _idx, [f"{train}-{end}" for end in ends], [f"{test}-{end}" for end in ends]


def _load(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """Read images and labels from where torchvision keeps them, or from ``options.folder``."""
    emnist = config.source == "emnist"
    check_options(config, ["folder", "split"] if emnist else ["folder"])
    read, train, test = _files(config)
    classes, key = _CLASSES.get(config.source, ("", ""))
    names = [*train, *test, *([classes] if classes else [])]
    entry = find_entry("emnist_letters" if emnist else config.source)
    folder = root / str(config.options.get("folder") or entry.about.folder)
    require_files(config, root, folder, names, download)
    for file in entry.contents if read is not _idx else ():
        if file.name in names and (wrong := file.checksum_mismatch(folder / file.name)):
            fix = f"replace it with: spinal data fetch {entry.name}"
            raise UserError(f"{folder / file.name} is damaged: {wrong}; {fix}")
    parts: dict[str, Any] = {}
    for part, files in (("train", train), ("test", test)):
        images, labels = read([folder / name for name in files])
        if len(labels) != len(images):
            counts = f"{len(images)} images but {len(labels)} labels in {folder}"
            raise UserError(f"{config.title}: {counts}; see: spinal data verify {config.name}")
        numbers = torch.from_numpy(labels.astype(np.int64)) + config.label_offset
        parts[part] = ImageSet(torch.from_numpy(np.ascontiguousarray(images)), numbers)
    return Dataset(**parts, classes=_unpickled(folder / classes)[key] if classes else ())


for _name in (*MNIST_FAMILY, *_KINDS):
    SOURCES.register(_name)(_load)
