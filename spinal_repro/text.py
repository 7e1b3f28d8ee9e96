"""Printing: names from files and records on a terminal, and output that nobody reads any more."""

import os
import sys
from contextlib import suppress

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets compute when a cell starts with it


def tell(line: str, error: bool = False) -> None:
    """Print a line on standard output or standard error; training goes on where that fails."""
    with suppress(OSError):
        print(line, file=sys.stderr if error else sys.stdout, flush=True)


def close_output() -> None:
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
