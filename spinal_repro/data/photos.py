"""Image files: listed first, decoded once to the size of the cell, cached as uint8 on disk.

Decoding is what photographs cost, so it is done once: all images of a part, brought to one size,
go into one ``.npy`` file beside the runs, named after the contents of the files and their
preparation. Runs map that file into memory.
"""

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.errors import UserError
from spinal_repro.io import exclusive_lock

SHOWN = 10  # unreadable files named in one message
T = TypeVar("T")


@dataclass(frozen=True)
class Decoded:
    """Images ``[N, C, H, W]`` uint8 of one size in a file that is mapped into memory."""

    images: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""
        return self.images.shape

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return self.images.nbytes

    def gather(self, rows: Tensor) -> Tensor:
        """The images of some rows: ``[M, C, H, W]`` uint8, on the CPU."""
        return torch.from_numpy(self.images[rows.numpy()])


@dataclass(frozen=True)
class Photos:
    """Image files of one part of a data set, not decoded yet.

    Attributes:
        paths: The files.
        labels: ``[N]`` int64.
        channels: 1 for grey, 3 for colour.
    """

    paths: Sequence[Path]
    labels: Tensor
    channels: int

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digests(self) -> list[bytes]:
        """16 bytes for the contents of each file.

        Raises:
            UserError: naming the files that cannot be read.
        """

        def digest(index: int) -> bytes:
            with self.paths[index].open("rb") as file:
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()

        return self._for_each(digest, "reading")

    @property
    def hash(self) -> str:
        """SHA-256 over the contents of all files and their labels."""
        whole = hashlib.sha256(b"".join(self.digests))
        whole.update(self.labels.numpy().astype("<i8").tobytes())
        return whole.hexdigest()

    def prepared(self, preprocessing: Preprocessing, cache: Path) -> Decoded:
        """All images at one size, from the cache or decoded into it now.

        Args:
            preprocessing: What every image is brought to.
            cache: Folder of caches; made where missing.

        Raises:
            UserError: naming every file that cannot be decoded, or where the disk is full.
        """
        about = {
            "files": hashlib.sha256(b"".join(self.digests)).hexdigest(),
            "resize": preprocessing.resize,
            "crop": preprocessing.crop,
            "interpolation": preprocessing.interpolation,
            "channels": self.channels,
        }
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        path = cache / f"{name}.npy"
        assert preprocessing.size is not None
        shape = (len(self), self.channels, preprocessing.size, preprocessing.size)
        images = _cached(path, shape)
        if images is None:
            try:
                images = self._decode_into(path, shape, preprocessing)
            except OSError as error:
                raise UserError(
                    f"the decoded images ({math.prod(shape) / 1e9:.1f} GB) cannot be written to "
                    f"{cache}: {error.strerror or error}; make room, or choose another folder with "
                    f"runs=FOLDER"
                ) from error
        return Decoded(images)

    def _decode_into(
        self, path: Path, shape: tuple[int, ...], preprocessing: Preprocessing
    ) -> NDArray[np.uint8]:
        """Decode into the cache, or wait for another run that does."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(
            path.with_name(f".{path.stem}.lock"), f"decoding images into {path}"
        ) as held:
            images = _cached(path, shape)
            if images is not None:
                return images
            if held:  # what runs that were killed left; without locks, others may be writing it
                for left in path.parent.glob(f".{path.name}.*.partial"):
                    left.unlink()
            partial = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.partial")
            try:
                self._write(partial, shape, preprocessing)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
            return np.load(path, mmap_mode="r")

    def _write(self, path: Path, shape: tuple[int, ...], preprocessing: Preprocessing) -> None:
        target = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):  # a mapped write to a full disk would end this process
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

        def decode(index: int) -> None:
            target[index] = read_image(self.paths[index], self.channels, preprocessing)

        self._for_each(decode, "decoding")
        target.flush()

    def _for_each(self, do: Callable[[int], T], what: str) -> list[T]:
        """Do something with each file, in threads; all that fail are named in one message."""

        def attempt(index: int) -> tuple[Any, str]:
            try:
                return do(index), ""
            except Exception as error:  # as `read_image` says
                return None, f"\n  {self.paths[index]}: {str(error) or type(error).__name__}"

        count = len(self.paths)
        options: Any = {"unit": " images", "disable": None, "leave": False, "delay": 2}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = list(tqdm(pool.map(attempt, range(count)), what, count, **options))
        failed = [why for _, why in done if why]
        if failed:
            more = f"\n  and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
            raise UserError(
                f"{len(failed)} of {count} image files cannot be read; delete or replace them:"
                f"{''.join(failed[:SHOWN])}{more}"
            )
        return [result for result, _ in done]


def _cached(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The images in a file of the cache; None where there is none, or it is damaged."""
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return images if (images.shape, images.dtype) == (shape, np.uint8) else None


def read_image(path: Path, channels: int, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode one image and bring it to its size.

    Grey, palette, CMYK and 16-bit images are converted; transparency is laid over white. The
    geometry is that of torchvision's ``Resize`` and ``CenterCrop`` on PIL images.

    Args:
        path: The file.
        channels: 1 for grey, 3 for colour.
        preprocessing: What the image is brought to.

    Returns:
        ``[C, H, W]`` uint8.

    Raises:
        Exception: of any type, where it cannot be decoded: Pillow's decoders raise many.
    """
    with Image.open(path) as opened:
        image = _resized(_converted(opened, "L" if channels == 1 else "RGB"), preprocessing)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            "its pixels have 32 bits, and which values are black and white is unknown; save it "
            "with 8 or 16 bits"
        )
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(mode)


def _resized(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Bring an image to its size."""
    width, height = image.size
    resize, side = preprocessing.resize, preprocessing.size
    method = Image.Resampling[preprocessing.interpolation.upper()]
    if isinstance(resize, list):
        high, wide = resize[0], resize[-1]
    elif resize is None:
        high, wide = height, width
    else:  # the shorter side to that size, the longer one in proportion, rounded down
        wide = resize if width <= height else int(resize * width / height)
        high = resize if height <= width else int(resize * height / width)
    if (wide, high) != (width, height):
        image = image.resize((wide, high), method)
    if side is None or (wide, high) == (side, side):
        return image
    left, top = round((wide - side) / 2), round((high - side) / 2)
    return image.crop((left, top, left + side, top + side))  # zeros where it is smaller
