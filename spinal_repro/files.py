"""Writing files so that they are there whole or not at all."""

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import yaml

from spinal_repro.errors import UserError

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if there is one


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file through a temporary neighbour, flushed to disk before it takes the name.

    A process that is killed while writing leaves the old file, and at most a hidden neighbour
    that nobody reads (see `clean`).

    Raises:
        OSError: with the name of the file, e.g. if the disk is full; the old one is as it was.
            Also for the name of a folder, a pipe or a device, which stay what they are.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file; left as it is", str(path))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        _write(partial, content)
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    sync_folder(path.parent)


def _write(path: Path, content: bytes | str) -> None:
    """Write and flush to disk."""
    with path.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
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


def clean(folder: Path) -> None:
    """Remove what killed writers left. Only for a folder that nobody else writes to."""
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON; NaN and infinities are refused."""
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
