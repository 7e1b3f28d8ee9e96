"""Files that are written whole or not at all, locks, and lines on a terminal."""

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import yaml
from filelock import BaseFileLock, FileLock, Timeout

from spinal_repro.errors import EXIT_BUSY, UserError

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if there is one
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets compute when a cell starts with it
LOCK, STATUS = ".lock", "status.json"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # file systems that have none


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
    fsync_directory(path.parent)


def _write(path: Path, content: bytes | str) -> None:
    """Write and flush to disk."""
    with path.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def fsync_file(path: Path) -> None:
    """Flush to disk what another library wrote."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def fsync_directory(folder: Path) -> None:
    """Flush the names in a folder to disk: a rename, too, must survive a power cut."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(folder: Path) -> None:
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


class BusyError(UserError):
    """Another process trains this run."""

    exit_code = EXIT_BUSY


def _acquire(path: Path, timeout: float) -> BaseFileLock:
    """Take a lock; on a file system without locks, continue without one.

    There is no fallback to a lock file, which a killed process would leave behind.
    """
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=timeout)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return lock


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Make a run folder and lock it; remove partial files of a killed process.

    Raises:
        BusyError: naming the process that has it.
        UserError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder / LOCK, timeout=1)  # `is_locked` takes it for a moment
        remove_partial_files(folder)
    except Timeout:
        raise BusyError(
            f"{_who(folder)} is training the run in {folder}; wait for it or stop it"
        ) from None
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written: {error}") from error
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process is training the run in a folder."""
    path = folder / LOCK
    if not path.is_file():
        return False
    try:
        _acquire(path, timeout=0).release()
    except Timeout:
        return True
    except OSError:  # a folder of another user's
        pass
    return False


def _who(folder: Path) -> str:
    try:
        status = read_json(folder / STATUS)
        return f"process {status['pid']} on {status['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def exclusive_lock(path: Path, doing: str) -> Iterator[bool]:
    """Context that one process at a time is in; the others print that they wait.

    Yields whether the file system has locks; without them several processes may be in it.

    Args:
        path: The file to lock, in an existing folder.
        doing: What the other process does, for the message.
    """
    try:
        lock = _acquire(path, timeout=0)
    except Timeout:
        print(f"another process is {doing}; waiting for it", file=sys.stderr)
        lock = _acquire(path, timeout=-1)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def echo(line: str, error: bool = False) -> None:
    """Print a line on standard output or standard error; training goes on where that fails."""
    with suppress(OSError):
        print(line, file=sys.stderr if error else sys.stdout, flush=True)


def ignore_broken_pipe() -> None:
    """Drop what standard output cannot take, so that it does not change the exit code."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str, keep: str = "") -> str:
    r"""The same text on one line, with control characters written out as ``\x1b``.

    Args:
        text: Any.
        keep: Characters to be left alone all the same, such as a line feed.
    """
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def clock(seconds: float) -> str:
    """Seconds as ``h:mm:ss`` or ``m:ss``."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def csv_text(text: str) -> str:
    """Text for a cell of CSV that no spreadsheet takes for a formula; numbers stay as they are."""
    if not text.startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
