"""Sources: from a data-set name to images and labels in memory.

A source is a function ``(config, root, download) -> Dataset`` registered under the name that
``dataset.source`` gives. Reading a data set that is missing or damaged ends in one message that
names the folder and the command to run.
"""

import dataclasses
import gzip
import importlib
import math
import os
import pickle
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spinal_repro.config import DatasetConfig
from spinal_repro.data.photos import Decoded, Photos
from spinal_repro.data.splits import content_hash, fingerprints, stratified
from spinal_repro.errors import UserError
from spinal_repro.registry import Registry

if TYPE_CHECKING:
    from torchvision.datasets import MNIST


@dataclass(frozen=True)
class ImageSet:
    """Images ``[N, C, H, W]`` uint8, in memory or decoded on demand, with labels ``[N]`` int64."""

    images: Tensor | Decoded
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digests(self) -> list[bytes]:
        """16 bytes for the contents of each image."""
        assert isinstance(self.images, Tensor)
        return fingerprints(self.images.numpy())

    @property
    def hash(self) -> str:
        """SHA-256 over images and labels."""
        assert isinstance(self.images, Tensor)
        return content_hash(self.images.numpy(), self.labels.numpy())


@dataclass(frozen=True)
class Dataset:
    """The published parts of a data set.

    Attributes:
        train: What is trained on, or a validation part cut from.
        test: What is reported.
        val: A published validation part, if there is one.
        classes: Names of the classes in the order of their labels, where the data say them.
    """

    train: ImageSet | Photos
    test: ImageSet | Photos
    val: ImageSet | Photos | None = None
    classes: Sequence[str] = ()


Source = Callable[[DatasetConfig, Path, bool], Dataset]
SOURCES: Registry[Dataset] = Registry("data source")


@cache
def load_sources() -> Registry[Dataset]:
    """The registry with the sources of the other files of this folder in it."""
    for module in ("cifar", "folder"):
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
    if config.num_classes is None:
        config = dataclasses.replace(config, num_classes=len(dataset.classes))
    if config.channels == 3:
        dataset = dataclasses.replace(
            dataset, train=_in_colour(dataset.train), test=_in_colour(dataset.test)
        )
    for part, size in (
        ("train", config.train_size),
        ("val", config.val_size),
        ("test", config.test_size),
    ):
        images = getattr(dataset, part)
        if images is not None or size is not None:
            _check(images, config, part, size)
    return dataset


def _in_colour(part: ImageSet | Photos) -> ImageSet | Photos:
    """Grey images on three equal channels, which take no memory of their own."""
    if isinstance(part, ImageSet) and isinstance(part.images, Tensor) and part.images.shape[1] == 1:
        return ImageSet(part.images.expand(-1, 3, -1, -1), part.labels)
    return part


def _check(
    images: ImageSet | Photos | None, config: DatasetConfig, part: str, size: int | None
) -> None:
    """Check one part against the configuration."""
    where = f"{config.title} ({part})"
    count = 0 if images is None else len(images)
    if images is None or size not in (None, count):
        raise UserError(
            f"{where} has {count} images where {size} are expected; if the files are "
            f"right, pass dataset.{part}_size={count or 'null'}"
        )
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= config.outputs:
        raise UserError(
            f"{where} has labels {low}..{high}, outside the {config.outputs} outputs; "
            f"check dataset.num_classes, dataset.num_outputs and dataset.label_offset"
        )
    if isinstance(images, ImageSet):
        side = config.image_size
        shape = (config.channels, side, side)
        if tuple(images.images.shape[1:]) != shape:
            found = "x".join(map(str, images.images.shape[1:]))
            raise UserError(
                f"{where} holds images of {found}, expected {config.channels}x{side}x{side}"
            )


@SOURCES.register("digits")
def digits(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """scikit-learn's handwritten digits: 1,797 real 8x8 images, enlarged to the configured size.

    The package has no split; a fixed stratified fifth is the test part.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = torch.from_numpy(raw.images).float().mul(255 / 16).unsqueeze(1)
    assert config.image_size is not None
    size = (config.image_size, config.image_size)
    large = torch.nn.functional.interpolate(small, size, mode="bilinear", align_corners=False)
    images = large.round().to(torch.uint8)
    labels = torch.from_numpy(raw.target).long()
    train, test = stratified(labels.numpy(), fraction=0.2, seed=0)
    return Dataset(
        ImageSet(images[train], labels[train]),
        ImageSet(images[test], labels[test]),
    )


def _tv() -> Any:
    """The data sets of torchvision, imported late: that takes as long as all of torch."""
    from torchvision import datasets

    return datasets


@dataclass(frozen=True)
class _IdxFamily:
    """One torchvision class over idx files: folder, file names and how to open each part."""

    folder: str
    files: Callable[[DatasetConfig], list[str]]
    open: Callable[[Path, DatasetConfig, bool, bool], "MNIST"]


_MNIST_FILES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def _emnist_split(config: DatasetConfig) -> str:
    return str(config.options.get("split", ""))


_FAMILIES = {
    "mnist": _IdxFamily(
        "MNIST", lambda c: _MNIST_FILES, lambda r, c, t, d: _tv().MNIST(r, train=t, download=d)
    ),
    "fashion_mnist": _IdxFamily(
        "FashionMNIST",
        lambda c: _MNIST_FILES,
        lambda r, c, t, d: _tv().FashionMNIST(r, train=t, download=d),
    ),
    "kmnist": _IdxFamily(
        "KMNIST", lambda c: _MNIST_FILES, lambda r, c, t, d: _tv().KMNIST(r, train=t, download=d)
    ),
    "qmnist": _IdxFamily(
        "QMNIST",
        lambda c: [
            f"qmnist-{part}-{kind}"
            for part in ("train", "test")
            for kind in ("images-idx3-ubyte", "labels-idx2-int")
        ],
        lambda r, c, t, d: _tv().QMNIST(r, what="train" if t else "test", download=d),
    ),
    "emnist": _IdxFamily(
        "EMNIST",
        lambda c: [
            f"emnist-{_emnist_split(c)}-{part}-{kind}"
            for part in ("train", "test")
            for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
        ],
        lambda r, c, t, d: _tv().EMNIST(r, split=_emnist_split(c), train=t, download=d),
    ),
}


def not_there(config: DatasetConfig, folder: Path, missing: list[str]) -> UserError:
    """The error for files that are missing and may be fetched."""
    return UserError(
        f"{config.title} is not in {folder.resolve()} (missing {', '.join(missing)}). "
        f"Fetch it with: spinal-train dataset={config.name} data.download=true; or say "
        f"where it lies: data.root=FOLDER or the environment variable SPINAL_DATA"
    )


def _load_idx_family(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """A data set of the MNIST family through torchvision's own class."""
    family = _FAMILIES[config.source]
    if config.source == "emnist" and _emnist_split(config) not in _tv().EMNIST.splits:
        raise UserError(
            f"dataset.options.split is '{_emnist_split(config)}'; EMNIST has {_tv().EMNIST.splits}"
        )
    folder, names = root / family.folder / "raw", family.files(config)
    _unpack_gzipped(folder, names)
    missing = [name for name in names if not (folder / name).is_file()]
    for name in names:
        if name not in missing:
            check_idx(folder / name)
    if missing and download:
        try:
            family.open(root, config, True, True)
            family.open(root, config, False, True)
        except (OSError, RuntimeError, HTTPException) as error:
            raise UserError(f"downloading {config.title} to {folder} failed: {error}") from error
    elif missing:
        raise not_there(config, folder, missing)
    for name in missing:  # fetched by now
        check_idx(folder / name)
    try:
        train = family.open(root, config, True, False)
        test = family.open(root, config, False, False)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        old = folder.parent / "processed"
        if old.exists():
            raise UserError(
                f"{config.title}: torchvision reads {old}, left there by an old version of it, "
                f"before {folder}, and fails; delete {old}"
            ) from error
        raise UserError(f"{config.title} cannot be read from {folder}: {error}") from error
    return Dataset(_images(train, config), _images(test, config))


for _name in _FAMILIES:
    SOURCES.register(_name)(_load_idx_family)


def _images(part: "MNIST", config: DatasetConfig) -> ImageSet:
    labels = part.targets if part.targets.ndim == 1 else part.targets[:, 0]  # QMNIST has 8 columns
    if len(labels) != len(part.data):
        raise UserError(
            f"{config.title}: {len(part.data)} images but {len(labels)} labels in {part.raw_folder}"
        )
    return ImageSet(part.data.unsqueeze(1), labels.long() + config.label_offset)


def _unpack_gzipped(folder: Path, names: list[str]) -> None:
    """Unpack files that lie there gzipped only, as other packages ship them."""
    for name in names:
        packed, plain = folder / f"{name}.gz", folder / name
        if packed.is_file() and not plain.exists():
            partial = folder / f".{name}.{os.getpid()}.partial"  # other runs may unpack it too
            try:
                with gzip.open(packed) as source, partial.open("wb") as target:
                    shutil.copyfileobj(source, target)
                partial.replace(plain)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise UserError(
                    f"{packed} is damaged ({error}); delete it and fetch it again"
                ) from error
            except OSError as error:
                raise UserError(f"{packed} cannot be unpacked: {error}") from error
            finally:
                partial.unlink(missing_ok=True)


_IDX_TYPES = {0x08: np.uint8, 0x09: np.int8, 0x0B: np.int16, 0x0C: np.int32, 0x0D: np.float32}
_IDX_NAMES = {"idx1-ubyte": (1, np.uint8), "idx3-ubyte": (3, np.uint8), "idx2-int": (2, np.int32)}


def check_idx(path: Path) -> tuple[int, ...]:
    """Check that an idx file is what its name says and as long as its header says.

    Returns:
        The shape of the array it holds.

    Raises:
        UserError: where the file cannot be read, is no idx file, is another kind of file than
            its name says, holds nothing, or is shorter or longer than its header says.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
            dims = head[3] if len(head) == 4 else 0
            sizes = file.read(4 * dims)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    mend = f"delete {path} and fetch it again with data.download=true"
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not 1 <= dims <= 4:
        raise UserError(f"{path.name} is not an idx file (it starts with {head.hex()}); {mend}")
    if len(sizes) < 4 * dims:
        raise UserError(f"{path.name} is cut short in its header; {mend}")
    shape = tuple(int.from_bytes(sizes[4 * i : 4 * i + 4], "big") for i in range(dims))
    dtype = np.dtype(_IDX_TYPES[head[2]])
    rank, kind = _IDX_NAMES.get(path.name[path.name.rfind("idx") :], (dims, dtype))
    if (dims, dtype) != (rank, kind):
        raise UserError(
            f"{path.name} holds {dims}-dimensional {dtype} data where its name says "
            f"{rank}-dimensional {np.dtype(kind)}: another file may have got its name; {mend}"
        )
    if 0 in shape:
        raise UserError(f"{path.name} holds nothing (its shape is {shape}); {mend}")
    expected = 4 + 4 * dims + dtype.itemsize * math.prod(shape)
    found = path.stat().st_size
    if found != expected:
        raise UserError(
            f"{path.name} is damaged: {found:,} bytes where its header says {expected:,}; {mend}"
        )
    return shape
