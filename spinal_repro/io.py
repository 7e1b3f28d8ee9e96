"""Reading and atomic writing of files, locks, and text for terminals and tables."""

import errno
import hashlib
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

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
LOCK, STATUS = ".lock", "status.json"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # file systems without locks


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file under a temporary name, flush it to disk and rename it.

    If the process is killed or the disk is full, the old file remains, in the first case with a
    partial file beside it. An OSError has the name of the file.
    """
    if path.exists() and not path.is_file():  # a rename would replace /dev/null
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON; ValueError for NaN and Inf."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON without NaN and Inf."""
    return parse_json(read_bytes(path), str(path))


def parse_json(content: bytes | str, source: str) -> Any:
    """Parse JSON; the error names ``source``."""
    try:
        return json.loads(content, parse_constant=_refuse)
    except ValueError as error:
        raise UserError(f"{source} cannot be read: {error}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it contains {constant}")


def read_yaml(path: Path) -> Any:
    """Read YAML as plain containers; tags that would create objects are refused."""
    content = read_utf8(path)
    try:
        return yaml.load(content, Loader=_LOADER)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def read_utf8(path: Path) -> str:
    """Read text; refuse a file that is not UTF-8."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error


def read_bytes(path: Path) -> bytes:
    """Read a file, or raise `UserError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def checksum(path: Path, kind: str = "sha256") -> str:
    """Compute the ``md5`` or ``sha256`` of a file in hex digits."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


class BusyError(UserError):
    """Another process trains this run."""

    exit_code = EXIT_BUSY


def _acquire(path: Path, timeout: float) -> BaseFileLock:
    """Take a lock; on a file system without locks, continue without one."""
    lock = FileLock(path, fallback_to_soft=False)  # a killed process would leave a soft lock
    try:
        lock.acquire(timeout=timeout)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return lock


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Create and lock a run folder, or raise BusyError; remove a killed process's partial files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder / LOCK, timeout=1)  # `is_locked` briefly holds the lock
        for path in folder.glob(".*.partial"):
            path.unlink(missing_ok=True)
    except Timeout:
        raise BusyError(
            f"{_owner(folder)} is training the run in {folder}; wait for it or stop it"
        ) from None
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written: {error}") from error
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process is training the run in a folder."""
    try:
        if (folder / LOCK).is_file():
            _acquire(folder / LOCK, timeout=0).release()
    except OSError as error:  # also for a folder of another user
        return isinstance(error, Timeout)
    return False


def _owner(folder: Path) -> str:
    try:
        status = read_json(folder / STATUS)
        return f"process {status['pid']} on {status['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def exclusive_lock(path: Path, action: str) -> Iterator[bool]:
    """Hold a lock; a process that has to wait for it says that another one is ``action``.

    Yields False on a file system without locks, where several processes may enter.
    """
    try:
        lock = _acquire(path, timeout=0)
    except Timeout:
        print(f"another process is {action}; waiting for it", file=sys.stderr)
        lock = _acquire(path, timeout=-1)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def echo(line: str, error: bool = False) -> None:
    """Print and flush a line; ignore write errors, so that training continues."""
    with suppress(OSError):
        print(line, file=sys.stderr if error else sys.stdout, flush=True)


def ignore_broken_pipe() -> None:
    """Flush standard output; a broken pipe does not change the exit code."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str, keep: str = "") -> str:
    r"""Escape control characters (``\x1b``), other than those to keep."""
    if text.isprintable():  # most texts; the report has many
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def expand_home(text: str) -> str:
    """Replace ~ at the start of a path; unlike `Path.expanduser`, keep ~name if it is no user."""
    return os.path.expanduser(text)  # noqa: PTH111


def clock(seconds: float) -> str:
    """Format seconds as ``h:mm:ss`` or ``m:ss``."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def csv_text(text: str) -> str:
    """Escape CSV text that a spreadsheet would run as a formula; numbers stay unchanged."""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
    return text
