"""Tables as text, CSV, Markdown and LaTeX, with the definitions of their columns below."""

import csv
import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spinal_repro.io import csv_text, printable

PERCENT, SIGNED, COUNT = "{:.2f}".format, "{:+.2f}".format, "{:,}".format
FORMATS = ("table", "csv", "markdown", "latex")
# An underscore inside a word is plain text to Markdown; at the edge of one it is not.
MARKDOWN_SPECIAL = re.compile(r"[\\`*|\[\]~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
HTML_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
LATEX_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


@dataclass(frozen=True)
class Column:
    """A column; ``form`` formats its values, except in CSV, which has full precision."""

    key: str  # in the rows, and the heading in CSV
    title: str
    meaning: str = ""  # for the line below the table
    form: Callable[[Any], str] = str


def interval_columns(low: str, high: str, form: Callable[[Any], str]) -> tuple[Column, Column]:
    """The two ends of a 95 % interval, by their meanings."""
    return Column("low", "95 % from", low, form), Column("high", "to", high, form)


def render(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], style: str) -> str:
    """Write a table in one of `FORMATS`, without a line feed at the end; None is empty."""
    if style == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([column.key for column in columns])
        writer.writerows([_csv(row.get(column.key)) for column in columns] for row in rows)
        return out.getvalue().rstrip("\n")
    titles = [column.title for column in columns]
    cells = [[_text(column, row.get(column.key)) for column in columns] for row in rows]
    right = [all(not isinstance(row.get(c.key), str) for row in rows) for c in columns]
    notes = list(dict.fromkeys(f"{c.title}: {c.meaning}" for c in columns if c.meaning))
    if style == "latex":
        return "\n".join([*(f"% {one_line(note)}" for note in notes), _latex(titles, cells, right)])
    if style == "markdown":
        lines = [[escape_markdown(text) for text in line] for line in (titles, *cells)]
        lines.insert(1, ["---:" if numeric else "---" for numeric in right])
        table = [f"| {' | '.join(line)} |" for line in lines]
        notes = [f"- {escape_markdown(note)}" for note in notes]
    else:
        table = _aligned(titles, cells, right)
    return "\n".join([*table, *(["", *notes] if notes else [])])


def _text(column: Column, value: Any) -> str:
    return "" if value is None else printable(column.form(value))


def _csv(value: Any) -> Any:
    return csv_text(printable(value)) if isinstance(value, str) else value


def _aligned(
    titles: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]
) -> list[str]:
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (titles, ["-" * width for width in widths], *cells)
    ]


def _latex(titles: list[str], cells: list[list[str]], right: Sequence[bool]) -> str:
    head, *lines = [
        " & ".join(one_line(text).translate(LATEX_ESCAPES) for text in line) + r" \\"
        for line in (titles, *cells)
    ]
    # LaTeX would read a bracket or a star after \\ as its argument
    lines = [f"{{}}{line}" if line[0] in "[*" else line for line in lines]
    form = "".join("r" if numeric else "l" for numeric in right)
    start, rule = rf"\begin{{tabular}}{{{form}}}", r"\hline"
    return "\n".join([start, rule, head, rule, *lines, rule, r"\end{tabular}"])


@functools.cache  # most values are on many rows
def escape_markdown(text: str) -> str:
    """Return text that Markdown shows unchanged, on one line, also inside a table."""
    return MARKDOWN_SPECIAL.sub(r"\\\g<0>", one_line(text).translate(HTML_ESCAPES))


def one_line(text: str) -> str:
    """Return text on one line, its control characters escaped."""
    return printable(" ".join(text.split()))
