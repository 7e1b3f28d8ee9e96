"""The MNIST family: idx files, read by torchvision's own classes."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torchvision import datasets as tv

from spinal_repro.data.archives import ArchiveError, gunzip
from spinal_repro.data.idx_files import check_idx
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, check_options, not_there
from spinal_repro.errors import UserError
from spinal_repro.schema import DatasetConfig


def _current(kind: type[tv.MNIST]) -> type[tv.MNIST]:
    """The class without its preference for a folder ``processed`` of old versions of itself."""
    return type(kind.__name__, (kind,), {"_check_legacy_exist": lambda self: False})


MNIST, FASHION_MNIST, KMNIST, QMNIST, EMNIST = (
    _current(kind) for kind in (tv.MNIST, tv.FashionMNIST, tv.KMNIST, tv.QMNIST, tv.EMNIST)
)


@dataclass(frozen=True)
class _IdxFamily:
    """One torchvision class over idx files: folder, file names and how to open each part."""

    folder: str
    files: Callable[[DatasetConfig], list[str]]
    open: Callable[[Path, DatasetConfig, bool], tv.MNIST]


_MNIST_FILES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def _split(config: DatasetConfig) -> str:
    return str(config.options.get("split", ""))


_FAMILIES = {
    "mnist": _IdxFamily("MNIST", lambda c: _MNIST_FILES, lambda r, c, t: MNIST(r, train=t)),
    "fashion_mnist": _IdxFamily(
        "FashionMNIST", lambda c: _MNIST_FILES, lambda r, c, t: FASHION_MNIST(r, train=t)
    ),
    "kmnist": _IdxFamily("KMNIST", lambda c: _MNIST_FILES, lambda r, c, t: KMNIST(r, train=t)),
    "qmnist": _IdxFamily(
        "QMNIST",
        lambda c: [
            f"qmnist-{part}-{kind}"
            for part in ("train", "test")
            for kind in ("images-idx3-ubyte", "labels-idx2-int")
        ],
        lambda r, c, t: QMNIST(r, what="train" if t else "test"),
    ),
    "emnist": _IdxFamily(
        "EMNIST",
        lambda c: [
            f"emnist-{_split(c)}-{part}-{kind}"
            for part in ("train", "test")
            for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
        ],
        lambda r, c, t: EMNIST(r, split=_split(c), train=t),
    ),
}


def _load_idx_family(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """A data set of the MNIST family through torchvision's own class."""
    family = _FAMILIES[config.source]
    check_options(config, ["split"] if config.source == "emnist" else [])
    if config.source == "emnist" and _split(config) not in tv.EMNIST.splits:
        raise UserError(
            f"dataset.options.split is '{_split(config)}'; EMNIST has {tv.EMNIST.splits}"
        )
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
        parts = [family.open(root, config, train) for train in (True, False)]
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{config.title} cannot be read from {folder}: {error}") from error
    return Dataset(train=_images(parts[0], config), test=_images(parts[1], config))


for _name in _FAMILIES:
    SOURCES.register(_name)(_load_idx_family)


def _images(part: tv.MNIST, config: DatasetConfig) -> ImageSet:
    labels = part.targets if part.targets.ndim == 1 else part.targets[:, 0]  # QMNIST has 8 columns
    if len(labels) != len(part.data):
        raise UserError(
            f"{config.title}: {len(part.data)} images but {len(labels)} labels in {part.raw_folder}"
        )
    return ImageSet(part.data.unsqueeze(1), labels.long() + config.label_offset)


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
