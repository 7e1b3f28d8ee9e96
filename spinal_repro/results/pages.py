"""Every committed table and page, made from records and cells: equal input, equal bytes."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from spinal_repro.errors import UserError
from spinal_repro.records.record import Record
from spinal_repro.results import accuracy, pairs, sizes
from spinal_repro.results.claims import claims_markdown
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import ResultGroup
from spinal_repro.results.tables import Column, escape_markdown, one_line, render
from spinal_repro.results.verdicts import NOT_RUN, RULES

KINDS = {"md": "Markdown", "csv": "CSV", "tex": "LaTeX"}  # of the files of each table
MARKER = re.compile(r"(<!-- table: ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
GENERATED = "Made by `spinal tables` from the records; do not edit."
SHORT = (
    *("dataset", "backbone", "head", "published", "protocol", "device", "epochs", "rule"),
    *("mean", "sd", "n", "low", "high", "verdict", "marks"),
)
SHORT_PAIRS = (
    *("cell", "protocol", "device", "unit", "n", "fc", "spinal", "difference"),
    *("low", "high", "p", "verdict", "marks"),
)

SELECTION = "What selection on the test set is worth"
IN_FULL = (
    "The tables below have the cells that were run. These files have every cell and every column, "
    "each defined under its table; CSV has ten digits of each number. The records are in "
    "`records/`."
)
Row = Mapping[str, Any]


class Table(NamedTuple):
    """A generated table; its name is the stem of its files."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]

    def files(self) -> dict[str, str]:
        """Text by path: the whole table in every format."""
        head = {
            "md": f"# {escape_markdown(self.title)}\n\n{GENERATED}\n\n",
            "tex": f"% {one_line(self.title)}. {GENERATED}\n",
            "csv": "",
        }
        text = {s: _render(self.columns, self.rows, kind.lower()) for s, kind in KINDS.items()}
        return {f"tables/{self.name}.{s}": f"{head[s]}{text[s]}\n" for s in KINDS}

    def links(self) -> str:
        """A line of a list with links to the files."""
        links = [f"[{kind}](tables/{self.name}.{suffix})" for suffix, kind in KINDS.items()]
        return f"- {escape_markdown(self.title)}: {', '.join(links)}"

    def section(self, shown: Iterable[str]) -> list[str]:
        """Some columns of the rows that were run, as a section of a page; none without rows."""
        ran = [row for row in self.rows if row["verdict"] != NOT_RUN]
        columns = [Column(c.key, c.title, form=c.form) for c in self.columns if c.key in shown]
        heading = f"## {escape_markdown(self.title)}"
        return [heading, _render(columns, ran, "markdown")] if ran else []


def files(index: ResultsIndex, own: Sequence[Record] = ()) -> dict[str, str]:
    """Make all files below the folder of the results, by path.

    Args:
        own: Records of runs that name no cell.
    """
    paper = []
    for name, results in index.by_table().items():
        columns = accuracy.columns(name, results[0].unit)
        paper.append(Table(name, index.titles[name], columns, list(map(accuracy.row, results))))
    counted = sizes.rows(index.cells.values(), index.counts)
    selected = accuracy.selection_rows(index.results)
    paired = Table(
        "pairs", "FC against Spinal, seed by seed", pairs.COLUMNS, list(map(pairs.row, index.pairs))
    )
    tables = [
        *paper,
        Table("sizes", "Parameters and multiplications", sizes.COLUMNS, counted),
        paired,
        Table("selection", SELECTION, accuracy.SELECTION, selected),
    ]
    found: dict[str, str] = {}
    for table in tables:
        found |= table.files()
    parts = ["# Results", GENERATED, claims_markdown(index), "## Overview", _overview(paper)]
    parts += ["## Tables in full", IN_FULL, "\n".join(table.links() for table in tables)]
    for table in paper:
        parts += table.section(SHORT)
    parts += paired.section(SHORT_PAIRS)
    if own:
        parts += ["## Your runs", "Runs that name no published cell."]
        parts.append(_render(OWN, list(map(_own_row, own)), "markdown"))
    found["README.md"] = "\n\n".join(parts) + "\n"
    return found


def _render(columns: Sequence[Column], rows: Sequence[Row], style: str) -> str:
    """Render ten digits of each number: the last bits differ from one SciPy to another."""
    rounded = [
        {k: float(f"{v:.10g}") if isinstance(v, float) else v for k, v in row.items()}
        for row in rows
    ]
    return render(columns, rounded, style)


def _overview(tables: Iterable[Table]) -> str:
    """A row a table: its cells, how many were run, and how many results have each verdict."""
    rows: list[Row] = []
    found: set[str] = set()
    for table in tables:
        verdicts = Counter(row["verdict"] for row in table.rows)
        cells = {row["cell"] for row in table.rows}
        ran = {row["cell"] for row in table.rows if row["n"]}
        rows.append({"table": table.title, "cells": len(cells), "run": len(ran), **verdicts})
        found |= verdicts.keys()
    columns = (
        Column("table", "Table"),
        Column("cells", "Cells", "numbers of the paper and of the works around it"),
        Column("run", "Run", "cells with a record; one run in several ways has several rows"),
        *(Column(word, word.capitalize(), RULES[word]) for word in RULES if word in found),
    )
    return render(columns, rows, "markdown")


GROUPS = ("dataset", "model", "head", "protocol")
OWN = (
    *(Column(group, group.capitalize()) for group in GROUPS),
    Column("device", "Device"),
    Column("epochs", "Epochs"),
    Column("seed", "Seed"),
    Column("selected", "Selected", "test accuracy in % at the selected epoch", "{:.2f}".format),
    Column("last", "Last", "test accuracy in % after the last epoch", "{:.2f}".format),
)


def _own_row(record: Record) -> dict[str, Any]:
    assert record.test is not None
    return {
        **{group: record.config[group]["name"] for group in GROUPS},
        "device": record.device,
        "epochs": record.epochs,
        "seed": record.seed,
        "selected": 100 * record.test.selected.accuracy,
        "last": 100 * record.test.last.accuracy,
    }


def fill(text: str, index: ResultsIndex) -> str:
    """Fill in the tables between ``<!-- table: mnist/cnn_* -->`` and ``<!-- end -->``.

    A marker names cells, or patterns of them. Of each cell the row is shown that follows the
    paper's protocol most closely, or with ``mnist/cnn_*@heldout`` the first one under it.
    """

    def table(found: re.Match[str]) -> str:
        chosen: dict[str, ResultGroup] = {}
        for pattern in found[2].split():
            name, _, protocol = pattern.partition("@")
            for result in index.results:
                if fnmatchcase(result.cell.name, name) and protocol in ("", result.protocol):
                    chosen.setdefault(result.cell.name, result)
        if not chosen:
            marker = found[1].strip()
            raise UserError(f"the marker '{marker}' matches no cell; see spinal paper list")
        rows = [_front_row(result, index) for result in chosen.values()]
        return f"{found[1]}{_render(FRONT, rows, 'markdown')}\n{found[3]}"

    return MARKER.sub(table, text)


def _front_row(result: ResultGroup, index: ResultsIndex) -> dict[str, Any]:
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
        "head_parameters": index.count(result.cell.name, "head_parameters"),
        "head_multiplications": index.count(result.cell.name, "head_multiplications"),
    }


_PLAIN, _COUNT = "{:.2f}".format, "{:,}".format
_HEAD_MULT = "multiplications of the head for one image"
FRONT = (
    Column("title", "Cell"),
    Column("published", "Paper", "the published single value", _PLAIN),
    Column("mean", "Ours", "mean over n runs with different seeds", _PLAIN),
    Column("sd", "SD", "standard deviation over seeds", _PLAIN),
    Column("n", "n"),
    Column("interval", "95 %", "interval of the mean, Student's t over seeds"),
    Column("verdict", "Verdict", "see results/README.md for the rule of each word"),
    Column("head_parameters", "Head params", "trainable parameters of the head", _COUNT),
    Column("head_multiplications", "Head mult", _HEAD_MULT, _COUNT),
)
