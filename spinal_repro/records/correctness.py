"""Correctly classified test images of a run, packed for its record (for McNemar's test)."""

import base64
import zlib

import numpy as np
from numpy.typing import NDArray

from spinal_repro.errors import UserError


def pack_correct(correct: NDArray[np.bool_]) -> str:
    """Pack booleans ``[N]`` in the order of the test part: one bit each, deflated, as base64."""
    bits = np.packbits(np.asarray(correct, dtype=bool))
    return base64.b64encode(zlib.compress(bits.tobytes(), 9)).decode()


def unpack_correct(text: str, count: int) -> NDArray[np.bool_]:
    """Undo `pack_correct` for ``count`` images."""
    try:
        packed = zlib.decompress(base64.b64decode(text, validate=True))
    except (ValueError, zlib.error) as error:
        raise UserError(f"correct_bits cannot be read: {error}") from error
    if len(packed) != (count + 7) // 8:
        raise UserError(f"correct_bits holds {8 * len(packed)} bits, expected {count}")
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool)
