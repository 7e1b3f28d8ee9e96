"""Writing files so that they are there whole or not at all, and telling when they are damaged."""

import errno
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import yaml

from spinal_repro.errors import UserError

Content = bytes | str | Sequence[bytes | memoryview]
SEAL = b"sha256 "
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if there is one
_SEALED = len(SEAL) + 64 + 1  # the first line: what it is, 64 hex digits, a line feed


class DamagedError(ValueError):
    """A sealed file is not what was written."""


def write_atomic(path: Path, content: Content, keep: Path | None = None) -> None:
    """Write a file through a temporary neighbour, flushed to disk before it takes the name.

    A process that is killed while writing leaves the old file, and at most a hidden neighbour
    that nobody reads (see `clean`).

    Args:
        path: Where to.
        content: Bytes, text, or parts that are written one after another.
        keep: What the file that is there now is called from then on; nothing: it is replaced.

    Raises:
        OSError: with the name of the file, e.g. where the disk is full; the old one is as it was.
            Also where the name is that of a folder, a pipe or a device, which stay what they are.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file, and is not replaced", str(path))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        _write(partial, content)
        if keep is not None and path.exists():
            path.replace(keep)
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    sync_folder(path.parent)


def _write(path: Path, content: Content) -> None:
    """Write and flush to disk."""
    data = content.encode() if isinstance(content, str) else content
    with path.open("wb") as file:
        for part in [data] if isinstance(data, bytes) else data:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Flush to disk what another library wrote."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk: a rename, too, must survive a power cut."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; their names, too, are on disk before anything is in them.

    Raises:
        OSError: where it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_folder(path.parent)


def clean(folder: Path) -> None:
    """Remove what killed writers left. Only for a folder that nobody else writes to."""
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)


def write_sealed(path: Path, parts: Sequence[bytes | memoryview], keep: Path | None = None) -> None:
    """`write_atomic` with a first line that has the SHA-256 of all that follows."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    write_atomic(path, [SEAL, digest.hexdigest().encode(), b"\n", *parts], keep)


def read_sealed(path: Path) -> memoryview:
    """What `write_sealed` wrote, without its first line.

    Raises:
        DamagedError: where any byte is another one, or some are missing.
        OSError: where it cannot be read at all.
    """
    data = memoryview(path.read_bytes())
    content = data[_SEALED:]
    if bytes(data[:_SEALED]) != SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n":
        raise DamagedError("its checksum does not match")
    return content


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and machines: indented, no NaN."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: with the name of the file, where it cannot be read or is not JSON. NaN and
            infinities are not.
    """
    return parse_json(_read(path), str(path))


def parse_json(content: bytes | str, what: str) -> Any:
    """`read_json` of text that comes from ``what``, for the message."""
    try:
        return json.loads(content, parse_constant=_refuse)
    except ValueError as error:
        raise UserError(f"{what} cannot be read: {error}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")


def read_yaml(path: Path) -> Any:
    """Read YAML as plain containers; tags that would make objects are refused.

    Raises:
        UserError: with the name of the file, where it cannot be read or is not such YAML.
    """
    try:
        return yaml.load(_read(path), Loader=_LOADER)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
