"""Locks of the operating system: for one process at a time, and ended with it."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
FOREVER = -1


def file_lock(path: Path) -> BaseFileLock:
    """A lock that the operating system keeps.

    Never a file that stands for one, which would outlive a process that is killed.

    Args:
        path: The file to lock.
    """
    return FileLock(path, fallback_to_soft=False)


def acquire(lock: BaseFileLock, timeout: float) -> bool:
    """Take a lock; False where its file system has none.

    Args:
        lock: To take.
        timeout: Seconds to wait for the process that has it, or `FOREVER`.

    Raises:
        Timeout: where another process still has it.
        OSError: where its folder cannot be written.
    """
    try:
        lock.acquire(timeout=timeout)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


@contextmanager
def alone(path: Path, doing: str) -> Iterator[bool]:
    """Context that one process at a time is in; the others wait, and say so.

    Args:
        path: The file to lock, in a folder that is there.
        doing: What the other process is at, for the message.

    Yields:
        Whether there was a lock to take; without, others may be in it too.

    Raises:
        OSError: where the folder cannot be written.
    """
    lock = file_lock(path)
    try:
        held = acquire(lock, timeout=0)
    except Timeout:
        print(f"another process is {doing}; waiting for it", file=sys.stderr)
        held = acquire(lock, FOREVER)
    try:
        yield held
    finally:
        lock.release()
