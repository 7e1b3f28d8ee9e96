"""The idx file format of the MNIST family."""

import math
from pathlib import Path

import numpy as np

from spinal_repro.errors import UserError

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
    begins = f"it starts with {head.hex()}" if head else "it is empty"
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not 1 <= dims <= 4:
        raise UserError(f"{path.name} is not an idx file ({begins}); {mend}")
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


def read_idx(path: Path) -> np.ndarray:
    """The array in an idx file that `check_idx` has found right; numbers of more bytes are int32.

    Raises:
        OSError: where the file cannot be read.
        ValueError: where it is shorter than its header says.
    """
    with path.open("rb") as file:
        head = file.read(4)
        shape = np.frombuffer(file.read(4 * head[3]), ">i4")
        values = np.fromfile(file, np.dtype(_IDX_TYPES[head[2]]).newbyteorder(">"))
    return values.reshape(shape).astype(_IDX_TYPES[head[2]], copy=False)
