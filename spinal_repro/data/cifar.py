"""CIFAR-10 and CIFAR-100: torchvision's files, read without unpickling objects.

The files are pickles, and a pickle can call anything. These are read once, their sums compared,
and then taken apart by an unpickler that knows plain containers and arrays of bytes alone.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import datasets as tv

from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, check_options, check_sums
from spinal_repro.errors import UserError
from spinal_repro.schema import DatasetConfig

SHAPE = (3, 32, 32)
ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy")


@dataclass(frozen=True)
class _Files:
    """The files of one torchvision class with their MD5 sums."""

    kind: type[tv.CIFAR10]

    @property
    def sums(self) -> dict[str, str]:
        """File name to MD5 sum."""
        meta = (self.kind.meta["filename"], self.kind.meta["md5"])
        return dict([*self.kind.train_list, *self.kind.test_list, meta])


_KINDS = {"cifar10": _Files(tv.CIFAR10), "cifar100": _Files(tv.CIFAR100)}


class _Part:
    """Stands for what a pickle would make of NumPy: takes what it is given and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


class _Unpickler(pickle._Unpickler):
    """Knows plain containers, and arrays as `_Part`; everything else is refused.

    The one in Python: that in C makes a table as long as any number that a file gives as a place.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The class of that name, which is `_Part` or not allowed."""
        if module in ARRAYS and name in ("_reconstruct", "ndarray", "dtype"):
            return _Part
        if (module, name) == ("_codecs", "encode"):  # as Python 3 writes bytes for Python 2
            return _encode
        raise pickle.UnpicklingError(f"it names {module}.{name}, which images do not need")


def read_batch(content: bytes) -> dict[str, Any]:
    """One of CIFAR's pickles; text is text, arrays are ``uint8``, and nothing is called.

    Args:
        content: Of the file.

    Raises:
        ValueError: where it is no pickle, or holds more than containers, text, numbers and arrays
            of bytes.
    """
    try:
        found = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        if not isinstance(found, dict):
            raise ValueError("it holds no table")
        return {str(key): _array(v) if isinstance(v, _Part) else v for key, v in found.items()}
    except ValueError:
        raise
    except Exception as error:  # bytes that are no pickle can end the unpickler in any way
        raise ValueError(str(error) or type(error).__name__) from error


def _array(part: _Part) -> NDArray[np.uint8]:
    """The array that a part stands for: the state that NumPy pickles, taken apart by hand."""
    _, shape, kind, by_column, content = part.state
    if not isinstance(kind, _Part) or by_column:
        raise ValueError("it holds an array that is not built row by row")
    data = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(data, np.uint8).reshape(shape)


def _load_cifar(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """Images ``[N, 3, 32, 32]``; no file is opened before its sum agrees."""
    files = _KINDS[config.source]
    kind, folder = files.kind, root / files.kind.base_folder
    check_options(config, [])
    check_sums(config, root, folder, files.sums, download)
    parts = []
    for listed in (kind.train_list, kind.test_list):
        batches = [_batch(folder / name, files.sums[name]) for name, _ in listed]
        images = np.concatenate([images for images, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        parts.append(
            ImageSet(torch.from_numpy(images), torch.from_numpy(labels) + config.label_offset)
        )
    meta = _read(folder / kind.meta["filename"], kind.meta["md5"])
    return Dataset(parts[0], parts[1], classes=_names(meta.get(kind.meta["key"])))


def _names(given: Any) -> Sequence[str]:
    listed = given if isinstance(given, list) else []
    return [name for name in listed if isinstance(name, str)]


def _read(path: Path, md5: str) -> dict[str, Any]:
    """The table of one file whose sum is compared on the very bytes that are read."""
    content = path.read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise UserError(f"{path.name} is damaged (its MD5 sum is not {md5}); fetch it again")
    try:
        return read_batch(content)
    except ValueError as error:
        raise UserError(f"{path} is no file of CIFAR: {error}") from error


def _batch(path: Path, md5: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images ``[N, 3, 32, 32]`` and labels ``[N]`` of one file."""
    try:
        return images_and_labels(_read(path, md5))
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is no file of CIFAR: {error}") from error


def images_and_labels(table: Mapping[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """What a table of `read_batch` holds.

    Returns:
        Images ``[N, 3, 32, 32]`` and labels ``[N]``.

    Raises:
        ValueError: where there are no such images, or not as many labels.
    """
    data, labels = table.get("data"), table.get("labels", table.get("fine_labels"))
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3 * 32 * 32:
        raise ValueError("it holds no images of 3 x 32 x 32 bytes")
    if not isinstance(labels, list) or any(type(v) is not int or abs(v) > 999 for v in labels):
        raise ValueError("it holds no labels")
    if len(labels) != len(data):
        raise ValueError(f"it holds {len(data)} images but {len(labels)} labels")
    return data.reshape(-1, *SHAPE), np.array(labels, dtype=np.int64)


for _name in _KINDS:
    SOURCES.register(_name)(_load_cifar)
