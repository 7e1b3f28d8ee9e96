"""Small data sets in the file format of the MNIST family, where torchvision keeps them."""

import dataclasses
import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
from helpers.composing import composed
from numpy.typing import NDArray

from spinal_repro.config.schema import DatasetConfig

FOLDERS = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "qmnist": "QMNIST",
    "emnist": "EMNIST",
}


class Part(NamedTuple):
    """Images ``[N, H, W]`` and labels ``[N]`` as numbered in the file."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def idx_bytes(array: NDArray[np.generic]) -> bytes:
    """An array of uint8 or int32 in idx format: magic number, sizes and values, all big-endian."""
    head = bytes([0, 0, {"uint8": 8, "int32": 12}[array.dtype.name], array.ndim])
    sizes = np.asarray(array.shape, dtype=">u4").tobytes()
    return head + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def paths(root: Path, config: DatasetConfig) -> list[Path]:
    """The files of a data set: training images and labels, then test images and labels."""
    train, test, labels = "train", "t10k", "labels-idx1-ubyte"
    if config.source == "qmnist":
        train, test, labels = "qmnist-train", "qmnist-test", "labels-idx2-int"
    elif config.source == "emnist":
        train, test = (f"emnist-{config.options['split']}-{part}" for part in ("train", "test"))
    kinds, folder = ("images-idx3-ubyte", labels), root / FOLDERS[config.source] / "raw"
    return [folder / f"{part}-{kind}" for part in (train, test) for kind in kinds]


def make_part(config: DatasetConfig, count: int, seed: int) -> Part:
    """Images that can be learnt: a coarse pattern per class, under noise; classes in turn."""
    side, cell = config.image_size, 4
    coarse = -(-side // cell)
    patterns = np.random.default_rng(12345).integers(0, 2, (config.num_classes, coarse, coarse))
    random = np.random.default_rng(seed)
    classes = random.permutation(np.arange(count) % config.num_classes)
    large = patterns[classes].repeat(cell, axis=1).repeat(cell, axis=2)[:, :side, :side]
    images = 150 * large + random.integers(0, 106, large.shape)
    first = 1 if config.options.get("split") == "letters" else 0
    return Part(images.astype(np.uint8), (classes + first).astype(np.uint8))


def write_dataset(
    root: Path, config: DatasetConfig, train: int, test: int, seed: int = 0
) -> tuple[Part, Part]:
    """Write ``train`` and ``test`` images; return both parts."""
    files = paths(root, config)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    parts = make_part(config, train, 2 * seed), make_part(config, test, 2 * seed + 1)
    for place, (images, labels) in zip((0, 2), parts, strict=True):
        columns: NDArray[np.generic] = labels
        if config.source == "qmnist":  # the class, then writer, index, glyph code, ...
            columns = np.random.default_rng(0).integers(-1, 2**31 - 1, (len(labels), 8), np.int32)
            columns[:, 0] = labels
        files[place].write_bytes(idx_bytes(images))
        files[place + 1].write_bytes(idx_bytes(columns))
    return parts


def small(name: str, **options: str) -> DatasetConfig:
    """The shipped configuration of a data set, with the sizes of the files of `written`."""
    shipped = composed(f"dataset={name}").dataset
    options = {**shipped.options, **options}
    return dataclasses.replace(shipped, train_size=120, test_size=60, options=options)


def written(root: Path, name: str) -> tuple[DatasetConfig, tuple[Part, Part], list[Path]]:
    """Write a small data set; return its configuration, both parts and the files."""
    config = small(name)
    return config, write_dataset(root, config, 120, 60), paths(root, config)


def gzip_in_place(path: Path) -> Path:
    """Replace a file by its gzipped form."""
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed
