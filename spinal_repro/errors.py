"""The error type for mistakes of the user, and the exit codes."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

# How spinal-train ends, 0 aside; 69 and 75 as in sysexits.h.
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUSY = 69  # another process trains this run
EXIT_INTERRUPTED = 75  # stopped by a signal or a deadline; the same command continues
SHOWN = 200  # characters of the name of a file
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")  # a name that can be part of a path


class UserError(ValueError):
    """Something the user can mend: says what was wrong, what was expected and how to fix it.

    Commands print its message without a traceback and exit non-zero.

    Attributes:
        exit_code: How a command that trains this one run ends.
    """

    exit_code = EXIT_FAILED


def error_message(error: BaseException) -> str:
    """An error as a user is told of it: without a traceback, files by their names."""
    if isinstance(error, OSError) and error.strerror:
        name = str(error.filename or "")
        short = name if len(name) <= SHOWN else f"{name[:SHOWN]}... ({len(name):,} characters)"
        return f"{short}: {error.strerror}" if name else error.strerror
    if isinstance(error, MemoryError):
        return f"it takes more memory than there is{f': {error}' if str(error) else ''}"
    return str(error) or type(error).__name__


def unknown(noun: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the nearest one that does.

    Args:
        noun: What the name is a name of, e.g. ``"head"``.
        name: The name given.
        known: All names that would have been accepted.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if not near:  # "data.dir" for "data.root": compare the last parts, then give the list
        tails = {known_name.rpartition(".")[2]: known_name for known_name in names}
        near = [tails[t] for t in difflib.get_close_matches(name.rpartition(".")[2], tails, n=1)]
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names) or 'none'}"
    return UserError(f"there is no {noun} '{name}'; {hint}")


def one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among those allowed.

    Raises:
        UserError: naming the nearest one.
    """
    if value not in allowed:
        raise unknown(f"value of {key}", value, allowed)


def check_names(names: Mapping[str, str]) -> None:
    """Refuse names that could not be those of folders: they become parts of paths.

    Args:
        names: Key to name.

    Raises:
        UserError: naming the first one.
    """
    for key, name in names.items():
        if not NAME.fullmatch(name):
            raise UserError(
                f"{key} must be made of letters, digits and . _ + - (at most 100), "
                f"got {name[:60]!r}"
            )
