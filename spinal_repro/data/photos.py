"""Image files: listed first, decoded once to the size of the cell, kept as uint8 on disk.

Decoding is what photographs cost, so it is done once: all images of a part, brought to one size,
go into one file beside the runs that is named after the contents of the files and what was made
of them. Runs map that file into memory. Where the disk has no room for it, images are decoded
for each batch instead, by threads.
"""

import errno
import functools
import hashlib
import json
import math
import os
import platform
import shutil
import sys
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

from spinal_repro.data.decoding import read_image, refuse_pipe
from spinal_repro.data.kept import load_images, write_sum
from spinal_repro.errors import UserError
from spinal_repro.locks import alone
from spinal_repro.preparation import Preparation

SHOWN = 10  # unreadable files named in one message
T = TypeVar("T")


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

        def digest(path: Path) -> bytes:
            refuse_pipe(path)
            with path.open("rb") as file:
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()

        return _for_each(self.paths, digest, what="reading")

    @property
    def hash(self) -> str:
        """SHA-256 over the contents of all files and their labels."""
        whole = hashlib.sha256(b"".join(self.digests))
        whole.update(self.labels.numpy().astype("<i8").tobytes())
        return whole.hexdigest()

    def prepared(self, preparation: Preparation, cache: Path) -> "Decoded":
        """All images at one size, from the cache or decoded into it now.

        Args:
            preparation: What every image is brought to.
            cache: Folder of caches; made where missing.

        Raises:
            UserError: naming every file that cannot be decoded.
        """
        assert preparation.size is not None
        about = {
            "files": hashlib.sha256(b"".join(self.digests)).hexdigest(),
            "resize": preparation.resize,
            "crop": preparation.crop,
            "interpolation": preparation.interpolation,
            "channels": self.channels,
        }
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        path = cache / f"{name}.npy"
        size = preparation.size
        shape = (len(self), self.channels, size, size)
        mapped = load_images(path, shape)
        if mapped is None:
            mapped = self._kept(path, shape, preparation, anew=path.is_file())
        if mapped is None:
            reader = _Reader(self, preparation)
            _for_each(range(len(self)), lambda i: reader.image(i)[0, 0, 0], "checking", self.paths)
            return Decoded(reader, shape)
        return Decoded(_Mapped(mapped), shape)

    def _kept(
        self, path: Path, shape: tuple[int, ...], preparation: Preparation, anew: bool
    ) -> NDArray[np.uint8] | None:
        """Decode into the cache, or wait for who is at it; None where that cannot be."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with alone(
                path.with_name(f".{path.stem}.lock"), f"decoding images into {path}"
            ) as held:
                if anew or not path.is_file():
                    if held:
                        _remove_partial(path)
                    self._write(path, shape, preparation)
                return load_images(path, shape)
        except OSError as error:
            print(
                f"decoded images cannot be kept in {path.parent} ({error}); decoding them for "
                f"each batch, which is slower",
                file=sys.stderr,
            )
            return None

    def _write(self, path: Path, shape: tuple[int, ...], preparation: Preparation) -> None:
        """Decode into the cache.

        Raises:
            OSError: where the disk has no room for it.
        """
        wanted, free = math.prod(shape), shutil.disk_usage(path.parent).free
        if wanted > 0.8 * free:
            gigabytes = f"{wanted / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free"
            raise OSError(errno.ENOSPC, gigabytes)
        partial = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.partial")
        reader = _Reader(self, preparation)
        try:
            target = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            if hasattr(os, "posix_fallocate"):  # a mapped write to a full disk would kill us
                with partial.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
            into = functools.partial(reader.write, target)
            _for_each(range(len(self)), into, "decoding", self.paths)
            target.flush()
            write_sum(path, target)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


class _Reader:
    """Decodes images when they are asked for."""

    def __init__(self, photos: Photos, preparation: Preparation) -> None:
        self._photos, self._preparation = photos, preparation
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def image(self, index: int) -> NDArray[np.uint8]:
        return read_image(self._photos.paths[index], self._photos.channels, self._preparation)

    def write(self, target: NDArray[np.uint8], index: int) -> None:
        target[index] = self.image(index)

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack(list(self._pool.map(self.image, rows.tolist())))


class _Mapped:
    """Images in a file that is mapped into memory."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self._images[rows]


@dataclass(frozen=True)
class Decoded:
    """Images of one size that are brought into memory as they are needed.

    Attributes:
        reader: Gives images ``[M, C, H, W]`` uint8 for row numbers ``[M]``.
        shape: ``(N, C, H, W)``.
    """

    reader: Any
    shape: tuple[int, int, int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return math.prod(self.shape)

    def gather(self, rows: Tensor) -> Tensor:
        """The images of some rows: ``[M, C, H, W]`` uint8, on the CPU."""
        return torch.from_numpy(self.reader.gather(rows.numpy()))


def _remove_partial(path: Path) -> None:
    """Remove what killed processes left of a cache; only for who alone is at it."""
    for left in path.parent.glob(f".{path.stem}.*.partial"):
        left.unlink()


def _for_each(
    items: Sequence[Any] | range,
    do: Callable[[Any], T],
    what: str,
    paths: Sequence[Path] | None = None,
) -> list[T]:
    """Do something with each file, in threads; all that fail are named in one message.

    Raises:
        UserError: naming the files that failed and why.
    """
    named = paths if paths is not None else items

    def attempt(position: int) -> tuple[T | None, str]:
        try:
            return do(items[position]), ""
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, OSError) and error.errno is not None and error.filename is None:
                raise  # writing failed, not reading
            return None, f"{named[position]}: {str(error) or type(error).__name__}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(
            tqdm(
                pool.map(attempt, range(len(items))),
                total=len(items),
                desc=what,
                unit=" images",
                disable=None,
                leave=False,
                delay=2,
            )
        )
    failed = [why for _, why in results if why]
    if failed:
        more = f"\n  and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        listed = "".join(f"\n  {why}" for why in failed[:SHOWN])
        raise UserError(
            f"{len(failed)} of {len(items)} image files cannot be read; delete or replace them:"
            f"{listed}{more}"
        )
    return [result for result, _ in results]  # type: ignore[misc]
