"""Locks of the operating system: they end with the process that holds them."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from spinal_repro.errors import EXIT_BUSY, UserError
from spinal_repro.files import clean, read_json

LOCK, STATUS = ".lock", "status.json"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # file systems that have none


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
        clean(folder)
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
def alone(path: Path, doing: str) -> Iterator[bool]:
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
