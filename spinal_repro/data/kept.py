"""Decoded images kept on disk: an ``.npy`` file and, beside it, the sum of what it must hold.

A file that is not what was written is as good as none: its images are decoded anew.
"""

import math
import sys
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinal_repro.files import read_json, write_json

CHUNK = 2**24  # bytes summed at once


def load_images(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Map kept images into memory; writable, and what is written stays in memory.

    Args:
        path: The ``.npy`` file.
        shape: ``(N, C, H, W)`` that they must have.

    Returns:
        The images, uint8; None where there are none, or others than were written.
    """
    if not path.is_file():
        return None
    try:
        wanted = read_json(_beside(path))
        mapped = np.load(path, mmap_mode="c", allow_pickle=False)
        size = path.stat().st_size - math.prod(shape)
        good = (mapped.shape, mapped.dtype) == (shape, np.uint8) and 0 < size < 1000
        if good and wanted == {"crc32": _sum(mapped), "shape": list(shape)}:
            return mapped
    except Exception:  # bytes that are no array can end NumPy's reader in any way
        pass
    print(f"the kept images {path} are damaged or incomplete; decoding anew", file=sys.stderr)
    return None


def write_sum(path: Path, images: NDArray[np.uint8]) -> None:
    """Write the sum of images that are about to get the name ``path``.

    Raises:
        OSError: where the disk refuses.
    """
    write_json(_beside(path), {"crc32": _sum(images), "shape": list(images.shape)})


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _sum(images: NDArray[np.uint8]) -> int:
    flat, found = images.reshape(-1), 0
    for start in range(0, flat.size, CHUNK):
        found = zlib.crc32(np.ascontiguousarray(flat[start : start + CHUNK]).data, found)
    return found
