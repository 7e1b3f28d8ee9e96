"""Image files: decoded once, resized, and cached as uint8 in an ``.npy`` file.

The cache is named after the contents of the files and their preprocessing; runs map it into
memory.
"""

import hashlib
import io
import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.data.splits import Indices
from spinal_repro.errors import UserError
from spinal_repro.io import exclusive_lock, read_json, write_json

SHOWN = 10  # unreadable files named in one message
Pixels = NDArray[np.uint8]  # [N, C, H, W], or [C, H, W] of one image
T = TypeVar("T")
COLUMNS = ("labels", "weights", "groups", "folds")  # tensors with a value for each image
_DIGESTS: dict[str, str] = {}  # by `version_of`


@dataclass(frozen=True)
class Row:
    """One image in a file of many: an image file, its content, or an array ``[C, H, W]``."""

    name: str
    version: str = ""
    content: bytes = b""
    pixels: Any = None
    features: Sequence[str] = ()  # names of the channels, if they are not pixels
    file: Path | None = None  # the image file that it names, in place of ``content``
    listed_in: Path | None = None

    def __str__(self) -> str:
        return f"{self.listed_in}/{self.name}" if self.listed_in else self.name

    def open(self, mode: str = "rb") -> io.BytesIO:
        """Open the content, like `Path.open`."""
        return io.BytesIO(self.file.read_bytes() if self.file else self.content)


def open_image(file: Path | Row) -> Image.Image:
    """Open an image file, or a row with one or with pixels."""
    if isinstance(file, Row) and file.pixels is not None:
        grey = len(file.pixels) == 1
        return Image.fromarray(file.pixels[0] if grey else file.pixels.transpose(1, 2, 0).copy())
    return Image.open(file if isinstance(file, Path) else file.open())


def columns_of(images: Any, at: Any = slice(None)) -> dict[str, Any]:
    """The labels, weights, groups and folds that images have, or some of the images."""
    return {name: found[at] for name in COLUMNS if (found := getattr(images, name)) is not None}


@dataclass(frozen=True)
class Photos:
    """Image files of one part of a data set, with labels ``[N]`` int64; not decoded yet."""

    paths: Sequence[Path | Row]
    labels: Tensor
    channels: int  # 1 for grey, 3 for colour
    weights: Tensor | None = None  # float32, of the images in the training loss
    groups: Tensor | None = None  # int64; a group is in one part alone
    folds: Tensor | None = None  # int64, for cross-validation

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digests(self) -> list[bytes]:
        """A 16-byte digest of each file, which is read again if its size or times change."""
        keys = [version_of(path) for path in self.paths]
        unread = [index for index, key in enumerate(keys) if key not in _DIGESTS]

        def digest(index: int) -> str:
            with self.paths[index].open("rb") as file:
                read = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
            return read.hexdigest()

        for index, found in zip(unread, self._for_each(digest, "reading", unread), strict=True):
            _DIGESTS[keys[index]] = found
        return [bytes.fromhex(_DIGESTS[key]) for key in keys]

    @property
    def hash(self) -> str:
        """SHA-256 of the contents of all files, of the labels and of other columns, if any."""
        whole = hashlib.sha256(b"".join(self.digests))
        for column in columns_of(self).values():
            whole.update(column.numpy().tobytes())
        return whole.hexdigest()

    def subset(self, indices: Indices) -> "Photos":
        """Select some of the files."""
        paths = [self.paths[index] for index in indices]
        return replace(self, paths=paths, **columns_of(self, indices))

    def decode(self, preprocessing: Preprocessing, cache: Path) -> Pixels:
        """Decode and resize all images, or map them into memory from the folder ``cache``."""
        about = {
            "files": hashlib.sha256(b"".join(self.digests)).hexdigest(),
            "channels": self.channels,
            **{k: v for k, v in vars(preprocessing).items() if k not in ("fit", "pad") or v},
        }
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        assert preprocessing.size is not None
        shape = (len(self), self.channels, preprocessing.size, preprocessing.size)
        path, lock = cache / f"{name}.npy", cache / f".{name}.lock"
        if (images := _load_cached(path, shape)) is not None:
            return images
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(lock, f"decoding images into {path}") as locked:
                if (images := _load_cached(path, shape)) is not None:
                    return images  # another run has just written it
                if locked:  # without locks, another process may be writing these
                    for partial in cache.glob(f".{path.name}.*.partial"):
                        partial.unlink()
                partial = cache / f".{path.name}.{platform.node()}.{os.getpid()}.partial"
                try:
                    self._write(partial, shape, preprocessing)
                    partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)
                return np.load(path, mmap_mode="r")
        except OSError as error:
            raise UserError(
                f"the decoded images ({math.prod(shape) / 1e9:.1f} GB) cannot be written to "
                f"{cache}: {error.strerror or error}; free some space, or set runs=FOLDER"
            ) from error

    def shapes(self, preprocessing: Preprocessing) -> Tensor | None:
        """Height and width ``[N, 2]`` of whole photographs in their squares; None if cropped."""
        if (fit := preprocessing.fit) is None:
            return None

        def measure(index: int) -> tuple[int, int]:
            with open_image(self.paths[index]) as image:
                return _fitted(image, fit)[::-1]

        return torch.tensor(self._for_each(measure, "measuring", range(len(self))))

    def _write(self, path: Path, shape: tuple[int, ...], preprocessing: Preprocessing) -> None:
        target = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):  # a mapped write to a full disk would kill the process
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

        def decode(index: int) -> None:
            target[index] = read_image(self.paths[index], self.channels, preprocessing)

        self._for_each(decode, "decoding", range(len(self)))
        target.flush()

    def _for_each(self, function: Callable[[int], T], label: str, of: Sequence[int]) -> list[T]:
        """Call a function for each file in threads; name all files that fail in one message."""

        def attempt(index: int) -> tuple[Any, str]:
            try:
                return function(index), ""
            except Exception as error:  # Pillow's decoders raise many types
                return None, f"\n  {self.paths[index]}: {str(error) or type(error).__name__}"

        options: Any = {"unit": " images", "disable": None, "leave": False, "delay": 2}
        options |= {"max_workers": os.cpu_count(), "tqdm_class": tqdm}
        done = thread_map(attempt, of, desc=label, **options)
        if failed := [why for _, why in done if why]:
            more = f"\n  and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
            unread = f"{len(failed)} of {len(self)} image files cannot be read"
            named = "".join(failed[:SHOWN]) + more
            raise UserError(f"{unread}; delete or replace them:{named}")
        return [result for result, _ in done]


def version_of(path: Path | Row) -> str:
    """Identify the content of a file without reading it."""
    if isinstance(path, Row):
        return path.version
    try:
        about = os.stat(path)  # noqa: PTH116  (three times as fast as Path.stat)
    except OSError:  # reading it says why
        return ""
    return f"{os.path.abspath(path)} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"  # noqa: PTH100


def load_digests(cache: Path) -> None:
    """Load the digests that an earlier run saved, so that unchanged files are not read."""
    with suppress(UserError):  # there are none, or the file is damaged
        _DIGESTS.update(read_json(cache / "digests.json"))


def save_digests(cache: Path) -> None:
    """Save the digests of the files that were read, if there are any, for the next run."""
    if _DIGESTS:
        with suppress(OSError):
            write_json(cache / "digests.json", _DIGESTS)


def _load_cached(path: Path, shape: tuple[int, ...]) -> Pixels | None:
    """Map a cache file into memory; None if it is missing or damaged."""
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return images if (images.shape, images.dtype) == (shape, np.uint8) else None


def read_image(path: Path | Row, channels: int, preprocessing: Preprocessing) -> Pixels:
    """Decode and resize one image as torchvision's ``Resize`` and ``CenterCrop`` do.

    Grey, palette, CMYK and 16-bit images are converted; transparency becomes white.

    Returns ``[C, H, W]`` uint8. Pillow's decoders raise many types of errors.
    """
    with open_image(path) as opened:
        image = _resized(converted(opened, "L" if channels == 1 else "RGB"), preprocessing)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def converted(image: Image.Image, mode: str) -> Image.Image:
    """Convert to 8 bits and to "L" or "RGB", transparent pixels over white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits have no known range; save it with 8 or 16 bits")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(mode)


def _resized(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    if preprocessing.pad:
        longer = max(image.size)
        left, top = ((side - longer) // 2 for side in image.size)
        image = image.crop((left, top, left + longer, top + longer))  # pads with 0
    resize, side = preprocessing.resize, preprocessing.size
    wide, high = image.size
    if preprocessing.fit is not None:
        wide, high = _fitted(image, preprocessing.fit)
    elif isinstance(resize, list):
        high, wide = resize[0], resize[-1]
    elif resize is not None:  # the shorter side; the longer one in proportion, rounded down
        wide, high = (int(resize * length / min(image.size)) for length in image.size)
    image = image.resize((wide, high), Image.Resampling[preprocessing.interpolation.upper()])
    if side is None or (wide, high) == (side, side):
        return image
    left = top = 0
    if preprocessing.fit is None:
        left, top = round((wide - side) / 2), round((high - side) / 2)
    return image.crop((left, top, left + side, top + side))  # pads a smaller image with 0


def _fitted(image: Image.Image, fit: int) -> tuple[int, int]:
    """Width and height of an image that is scaled down until both are at most ``fit``."""
    scale = min(1.0, fit / max(image.size))
    return max(1, round(scale * image.width)), max(1, round(scale * image.height))
