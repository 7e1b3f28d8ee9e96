"""The error type for user errors, and the exit codes."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

# Exit codes of spinal-train besides 0; 69 and 75 as in sysexits.h.
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUSY = 69  # another process trains this run
EXIT_INTERRUPTED = 75  # stopped by a signal or a deadline; the same command resumes


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
    """Build the error for an unknown ``noun``, e.g. head; it suggests the closest known name."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if not near:  # compare the last parts ("data.dir", "data.root"); else list all names
        tails = {known_name.rpartition(".")[2]: known_name for known_name in names}
        near = [tails[t] for t in difflib.get_close_matches(name.rpartition(".")[2], tails, n=1)]
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names) or 'none'}"
    return UserError(f"there is no {noun} '{name}'; {hint}")


def check_known(noun: str, name: Any, known: Iterable[str]) -> None:
    """Refuse an unknown ``noun``, see `unknown`."""
    if name not in (names := list(known)):
        raise unknown(noun, str(name), names)


def one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is not allowed."""
    if value not in allowed:
        raise UserError(f"{key} must be {' or '.join(allowed)}, got '{value}'")
