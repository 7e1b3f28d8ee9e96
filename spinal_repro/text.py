"""Text from elsewhere, made fit to be shown: file names, titles and records may hold anything."""

import os
import sys
import unicodedata
from contextlib import suppress

# control characters, lone surrogates, and what turns the direction of a line around
_HIDDEN = ("Cc", "Cs", "Zl", "Zp")
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets compute when a cell starts with it


def tell(line: str, error: bool = False) -> None:
    """Print a line at once, on standard output or standard error, or lose it.

    The file that takes them may be on a full disk, and who reads them may be gone: training goes
    on.
    """
    stream = sys.stderr if error else sys.stdout
    if stream is not None:  # as where it was closed from the start
        with suppress(OSError):
            print(line, file=stream, flush=True)


def close_output() -> None:
    """Lose what standard output cannot take, lest the exit code of this process tell of that."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str, keep: str = "") -> str:
    r"""The same text with every character that a terminal or a page would obey written out.

    An escape code becomes ``\x1b``, half a surrogate pair ``\udcff``; it can be encoded, and is
    one line.

    Args:
        text: Any.
        keep: Characters to be left alone all the same, such as a line feed.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or not _obeyed(c) else _written_out(c) for c in text)


def _obeyed(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN or character in _TURNING


def _written_out(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def csv_text(text: str) -> str:
    """Text for a cell of CSV that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
