"""Tables as text, CSV, Markdown and LaTeX, every column defined below."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spinal_repro.io import csv_text, printable

FORMATS = ("table", "csv", "markdown", "latex")
LATEX_ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
# An underscore inside a word is plain text to Markdown; at the edge of one it is not.
MARKDOWN_SPECIAL = re.compile(r"[\\`*|\[\]~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
HTML_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: What it is called in a row and in CSV.
        title: Its heading.
        meaning: Its definition, for the line below the table; empty where the title says it all.
        form: How a value is written, save in CSV, which has full precision. None is left empty.
    """

    key: str
    title: str
    meaning: str = ""
    form: Callable[[Any], str] = str


def render(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], style: str) -> str:
    """A table in one of `FORMATS`, without a line break at the end.

    Args:
        columns: What to show, in order.
        rows: Values by column key; a missing one is None.
        style: One of `FORMATS`.
    """
    assert style in FORMATS, style
    if style == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([column.key for column in columns])
        writer.writerows([_csv(row.get(column.key)) for column in columns] for row in rows)
        return out.getvalue().rstrip("\n")
    cells = [[_cell(column, row.get(column.key)) for column in columns] for row in rows]
    titles = [column.title for column in columns]
    right = [all(not isinstance(row.get(c.key), str) for row in rows) for c in columns]
    notes = [f"{column.title}: {column.meaning}" for column in columns if column.meaning]
    if style == "latex":
        return _latex(titles, cells, right, notes)
    if style == "markdown":
        rule = ["---:" if numeric else "---" for numeric in right]
        texts = [[escape_markdown(text) for text in line] for line in (titles, *cells)]
        lines = ["| " + " | ".join(line) + " |" for line in (texts[0], rule, *texts[1:])]
        notes = [f"- {escape_markdown(note)}" for note in notes]
        return "\n".join([*lines, *(["", *notes] if notes else [])])
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    lines = []
    for line in (titles, ["-" * width for width in widths], *cells):
        parts = [
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(line, widths, right, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line, also inside a table."""
    text = "".join(HTML_ESCAPES.get(c, c) for c in one_line(text))
    return MARKDOWN_SPECIAL.sub(lambda found: "\\" + found.group(), text)


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(LATEX_ESCAPES.get(c, c) for c in one_line(text))


def one_line(text: str) -> str:
    """Text on one line, with nothing in it that a terminal would obey."""
    return printable(" ".join(text.split()))


def _csv(value: Any) -> Any:
    return csv_text(printable(value)) if isinstance(value, str) else value


def _cell(column: Column, value: Any) -> str:
    return "" if value is None else printable(column.form(value))


def _latex(
    titles: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool], notes: list[str]
) -> str:
    """A plain ``tabular``, which needs no package; the definitions are comments."""

    def line(parts: Sequence[str]) -> str:
        text = " & ".join(map(escape_latex, parts))
        # the end of the line before would take either for an argument of its own
        return ("{}" if text.startswith(("[", "*")) else "") + text + r" \\"

    return "\n".join(
        [
            *(f"% {one_line(note)}" for note in notes),
            rf"\begin{{tabular}}{{{''.join('r' if numeric else 'l' for numeric in right)}}}",
            r"\hline",
            line(titles),
            r"\hline",
            *map(line, cells),
            r"\hline",
            r"\end{tabular}",
        ]
    )
