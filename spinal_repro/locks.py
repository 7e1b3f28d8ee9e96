"""Locks of the operating system: for one process at a time, and ended with it."""

import errno
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
FOREVER = -1


def acquire(lock: BaseFileLock, timeout: float) -> bool:
    """Take a lock; False where its file system has none.

    There some versions of filelock go on with a file that stands for a lock. It would outlive
    a process that is killed, so it counts as none and is given back.

    Args:
        lock: To take.
        timeout: Seconds to wait for whoever has it, or `FOREVER`.

    Raises:
        Timeout: where another process still has it.
        OSError: where its folder cannot be written.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of that; callers have their own words
            lock.acquire(timeout=timeout)
    except (OSError, NotImplementedError) as error:
        number = error.errno if isinstance(error, OSError) else errno.ENOSYS
        if number not in NO_LOCKS and not isinstance(lock, SoftFileLock):
            raise
        return False
    if isinstance(lock, SoftFileLock):
        lock.release()
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
    lock = FileLock(path)
    try:
        held = acquire(lock, timeout=0)
    except Timeout:
        print(f"another process is {doing}; waiting for it", file=sys.stderr)
        held = acquire(lock, FOREVER)
    try:
        yield held
    finally:
        lock.release()
