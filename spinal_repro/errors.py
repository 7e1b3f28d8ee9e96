"""The error type for user errors, and the exit codes."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

# Exit codes of spinal-train besides 0; 69 and 75 as in sysexits.h.
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUSY = 69  # another process trains this run
EXIT_INTERRUPTED = 75  # stopped by a signal or a deadline; the same command resumes
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")  # a name that can be part of a path


class UserError(ValueError):
    """An error that the user can fix: says what happened, where, and what to do.

    Commands print its message without a traceback and exit non-zero.
    """

    exit_code = EXIT_USAGE  # of spinal-train; EXIT_FAILED once the run has started


def error_message(error: BaseException) -> str:
    """Describe an error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return f"out of memory {error}".rstrip()
    return str(error) or type(error).__name__


def unknown(noun: str, name: str, known: Iterable[str]) -> UserError:
    """Build the error for an unknown name; it suggests the closest known name.

    Args:
        noun: What is named, e.g. ``"head"``.
        name: As given by the user.
        known: All accepted names.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if not near:  # compare the last parts ("data.dir", "data.root"); else list all names
        tails = {known_name.rpartition(".")[2]: known_name for known_name in names}
        near = [tails[t] for t in difflib.get_close_matches(name.rpartition(".")[2], tails, n=1)]
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names) or 'none'}"
    return UserError(f"there is no {noun} '{name}'; {hint}")


def one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is not allowed."""
    if value not in allowed:
        raise UserError(f"{key} must be {' or '.join(allowed)}, got '{value}'")


def check_names(names: Mapping[str, str]) -> None:
    """Refuse names, given by configuration key, that cannot be part of a path."""
    for key, name in names.items():
        if not NAME.fullmatch(name):
            raise UserError(
                f"{key} must be made of letters, digits and . _ + - (at most 100), got {name!r}"
            )
