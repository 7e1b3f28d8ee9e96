"""Every committed table and page, made from records and cells: equal input, equal bytes."""

import importlib
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from spinal_repro.errors import UserError
from spinal_repro.records.record import Record
from spinal_repro.results import accuracy, pairs, sizes
from spinal_repro.results.outcomes import ResultGroup
from spinal_repro.results.tables import Column, escape_markdown, one_line, render
from spinal_repro.results.verdicts import NOT_RUN, RULES

STYLES = {"md": "markdown", "csv": "csv", "tex": "latex"}
OTHERS = {
    "sizes": "Parameters and multiplications",
    "pairs": "FC against Spinal, seed by seed",
    "selection": "What selection on the test set is worth",
}
CLAIMS = "spinal_repro.results.claims"
MARKER = re.compile(r"(<!-- table: ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
GENERATED = "Made by `spinal tables` from the records; do not edit."


def files(
    results: Sequence[ResultGroup],
    counted: Mapping[str, Mapping[str, int]],
    titles: Mapping[str, str],
    own: Sequence[Record] = (),
) -> dict[str, str]:
    """All generated files below the folder of the results.

    Args:
        results: From `cells.match` with all cells.
        counted: Counts by cell, see `sizes.cell_counts`.
        titles: Title of each table, in the paper's order.
        own: Records of runs that name no cell.

    Returns:
        Path to text, lines ended by a line feed.
    """
    found: dict[str, str] = {}
    for table, title in titles.items():
        mine = [result for result in results if result.cell.table == table]
        if mine:
            columns = accuracy.columns(table, _unit(mine))
            found |= _styles(table, title, columns, [accuracy.row(result) for result in mine])
    by_name = {result.cell.name: result.cell for result in results}
    counts = sizes.cell_counts(results, counted)
    selection = [row for row in map(accuracy.selection_row, results) if row is not None]
    found |= _styles(
        "sizes", OTHERS["sizes"], sizes.COLUMNS, sizes.rows(list(by_name.values()), counts)
    )
    paired = [pairs.row(pair) for pair in pairs.pairs(results)]
    found |= _styles("pairs", OTHERS["pairs"], pairs.COLUMNS, paired)
    found |= _styles("selection", OTHERS["selection"], accuracy.SELECTION, selection)
    plain = {name: count for name, (count, _) in counts.items()}
    found["README.md"] = readme(results, titles, plain, paired, own)
    return found


def _unit(results: Sequence[ResultGroup]) -> str:
    """The unit of a table: a table has but one."""
    units = Counter(result.unit for result in results if result.published is not None)
    return units.most_common(1)[0][0] if units else "%"


def _styles(
    name: str, title: str, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """One table in every format."""
    found = {}
    steady = _steady(rows)
    for suffix, style in STYLES.items():
        text = render(columns, steady, style)
        if style == "markdown":
            text = f"# {escape_markdown(title)}\n\n{GENERATED}\n\n{text}"
        if style == "latex":
            text = f"% {one_line(title)}. {GENERATED}\n{text}"
        found[f"tables/{name}.{suffix}"] = f"{text}\n"
    return found


def _steady(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with ten digits of each number: the last bits differ from one SciPy to another."""
    return [
        {k: float(f"{v:.10g}") if isinstance(v, float) else v for k, v in row.items()}
        for row in rows
    ]


def readme(
    results: Sequence[ResultGroup],
    titles: Mapping[str, str],
    counts: Mapping[str, Mapping[str, int]],
    paired: Sequence[Mapping[str, Any]],
    own: Sequence[Record] = (),
) -> str:
    """The front page of the results: claims, an overview, and every row that was run."""
    parts = ["# Results", GENERATED, *claims(results, counts, titles)]
    words = [word for word in RULES if any(result.verdict == word for result in results)]
    rows = []
    for table, title in titles.items():
        mine = [result for result in results if result.cell.table == table]
        names = {result.cell.name for result in mine if result.runs}
        verdicts = Counter(result.verdict for result in mine)
        cells = len({result.cell.name for result in mine})
        row = {word: verdicts[word] or None for word in words}
        if mine:
            rows.append({"table": title, "cells": cells, "run": len(names), **row})
    overview = (
        Column("table", "Table"),
        Column("cells", "Cells", "numbers of the paper and of the works around it"),
        Column("run", "Run", "cells with a record; one run in several ways has several rows"),
        *(Column(word, word[0].upper() + word[1:], RULES[word]) for word in words),
    )
    parts += ["## Overview", render(overview, rows, "markdown"), *_files_section(titles, results)]
    for table, title in titles.items():
        ran = [r for r in results if r.cell.table == table and r.verdict != NOT_RUN]
        if ran:
            columns = [c for c in accuracy.columns(table, _unit(ran)) if c.key in SHORT]
            parts += [f"## {escape_markdown(title)}", _rows_only(columns, map(accuracy.row, ran))]
    if paired:
        columns = [c for c in pairs.COLUMNS if c.key in SHORT_PAIRS]
        parts += [f"## {OTHERS['pairs']}", _rows_only(columns, paired)]
    if own:
        parts += ["## Your runs", "Runs that name no published cell."]
        parts.append(render(OWN, _steady(map(_own_row, own)), "markdown"))
    return "\n\n".join(parts) + "\n"


SHORT = (
    *("dataset", "backbone", "head", "published", "protocol", "device", "epochs", "rule"),
    *("mean", "sd", "n", "low", "high", "verdict", "marks"),
)
SHORT_PAIRS = (
    *("cell", "protocol", "device", "unit", "n", "fc", "spinal", "difference"),
    *("low", "high", "p", "verdict", "marks"),
)


OWN = (
    *(Column(group, group.capitalize()) for group in ("dataset", "model", "head", "protocol")),
    Column("device", "Device"),
    Column("epochs", "Epochs"),
    Column("seed", "Seed"),
    Column("selected", "Selected", "test accuracy in % at the selected epoch", "{:.2f}".format),
    Column("last", "Last", "test accuracy in % after the last epoch", "{:.2f}".format),
)


def _own_row(record: Record) -> dict[str, Any]:
    assert record.test is not None
    groups = ("dataset", "model", "head", "protocol")
    return {
        **{group: record.config[group]["name"] for group in groups},
        "device": record.device,
        "epochs": record.epochs,
        "seed": record.seed,
        "selected": 100 * record.test.selected.accuracy,
        "last": 100 * record.test.last.accuracy,
    }


def _rows_only(columns: Sequence[Column], rows: Any) -> str:
    """A table whose columns are defined elsewhere."""
    plain = [Column(c.key, c.title, form=c.form) for c in columns]
    return render(plain, _steady(rows), "markdown")


def _files_section(titles: Mapping[str, str], results: Sequence[ResultGroup]) -> list[str]:
    used = {result.cell.table for result in results}
    named = {t: title for t, title in titles.items() if t in used} | OTHERS
    lines = [
        f"- {escape_markdown(title)}: [Markdown](tables/{name}.md), [CSV](tables/{name}.csv), "
        f"[LaTeX](tables/{name}.tex)"
        for name, title in named.items()
    ]
    return [
        "## Tables in full",
        "Below stands what was run. These files have every cell and every column, each defined "
        "under its table; CSV has ten digits of each number. Records lie in `records/`.",
        "\n".join(lines),
    ]


def claims(
    results: Sequence[ResultGroup],
    counts: Mapping[str, Mapping[str, int]],
    titles: Mapping[str, str],
) -> list[str]:
    """The section of the claims, if there is a module that judges them.

    It offers ``claims_markdown(results, counts, titles) -> str``: a heading and a table.
    """
    if importlib.util.find_spec(CLAIMS) is None:
        return []
    section = getattr(importlib.import_module(CLAIMS), "claims_markdown", None)
    return [] if section is None else [section(results, counts, titles).strip()]


def fill(
    text: str, results: Sequence[ResultGroup], counted: Mapping[str, Mapping[str, int]]
) -> str:
    """Replace what stands between the markers of a page by the tables they ask for.

    A marker names cells, or patterns of them: ``<!-- table: mnist/cnn_* -->``, up to
    ``<!-- end -->``. Of each cell the row is shown that follows the paper's protocol most closely,
    or with ``mnist/cnn_*@heldout`` the first one under that protocol.

    Args:
        text: The page.
        results: From `cells.match`.
        counted: Counts by cell.

    Raises:
        UserError: where a marker's pattern matches no cell.
    """
    counts = sizes.cell_counts(results, counted)

    def table(found: re.Match[str]) -> str:
        chosen: dict[str, ResultGroup] = {}
        for pattern in found[2].split():
            name, _, protocol = pattern.partition("@")
            for result in results:
                if fnmatchcase(result.cell.name, name) and protocol in ("", result.protocol):
                    chosen.setdefault(result.cell.name, result)
        if not chosen:
            raise UserError(
                f"the marker '{found[1].strip()}' matches no cell; see spinal paper list"
            )
        rows = [_front_row(result, counts) for result in chosen.values()]
        return f"{found[1]}{render(FRONT, _steady(rows), 'markdown')}\n{found[3]}"

    return MARKER.sub(table, text)


def _front_row(result: ResultGroup, counts: Mapping[str, Any]) -> dict[str, Any]:
    size, _ = counts.get(result.cell.name, ({}, ""))
    low, high = result.interval or (None, None)
    other = [result.numerics] if result.numerics else []
    return {
        "title": result.cell.title,
        "published": result.published_value,
        "mean": result.mean,
        "sd": result.sd,
        "n": result.n,
        "interval": None if low is None else f"{low:.2f} to {high:.2f}",
        "verdict": "; ".join((result.verdict, *map(str, result.differences), *other)),
        "head_parameters": size.get("head_parameters"),
        "head_multiplications": size.get("head_multiplications"),
    }


_PLAIN = accuracy.number("%")

FRONT = (
    Column("title", "Cell"),
    Column("published", "Paper", "the published single value", _PLAIN),
    Column("mean", "Ours", "mean over n runs with different seeds", _PLAIN),
    Column("sd", "SD", "standard deviation over seeds", _PLAIN),
    Column("n", "n"),
    Column("interval", "95 %", "interval of the mean, Student's t over seeds"),
    Column("verdict", "Verdict", "see results/README.md for the rule of each word"),
    Column("head_parameters", "Head params", "trainable parameters of the head", "{:,}".format),
    Column(
        "head_multiplications", "Head mult", "multiplications of the head for one image",
        "{:,}".format,
    ),
)  # fmt: skip
