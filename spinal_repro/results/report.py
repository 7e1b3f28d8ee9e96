"""The report: one HTML file with claims, tables and figures, and nothing outside it.

The same findings give the same bytes. All text passes through jinja2's escaping; the page forbids
itself any connection.
"""

import base64
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spinal_repro.io import printable
from spinal_repro.results import accuracy, pairs, sizes, verdicts
from spinal_repro.results.cell_details import describe_cell
from spinal_repro.results.claims import Judged, tally
from spinal_repro.results.figures import Drawn
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import ResultGroup
from spinal_repro.results.rules import RULES
from spinal_repro.results.tables import Column

ABOUT = (
    "SpinalNet (arXiv 2007.03347) replaces the fully connected head of a network by one that takes "
    "the features in gradually. Here its experiments are run again. Published numbers are typed in "
    "with their sources; everything else on this page is computed from records of runs and from "
    "the models."
)
FOOTER = (
    "Made by `spinal report` from the committed records; the same records give the same bytes. "
    "The page is one file: it loads nothing and sends nothing."
)
SHOWN = (  # of an accuracy table; a row's details have the rest
    "published", "mean", "sd", "n", "low", "high", "difference", "protocol", "verdict",
)  # fmt: skip
SHOWN_PAIRS = (
    "dataset", "backbone", "head", "protocol", "unit", "n", "fc", "spinal", "difference",
    "low", "high", "p", "verdict", "marks",
)  # fmt: skip
SHOWN_SIZES = (
    "dataset", "backbone", "head", "head_parameters", "head_parameters_change",
    "head_multiplications", "head_multiplications_change", "total_multiplications",
    "total_multiplications_change", "head_activations",
)  # fmt: skip
TONES = {
    "good": ("supported", verdicts.REPRODUCED, pairs.SPINAL_HIGHER),
    "bad": ("contradicted", verdicts.HIGHER, verdicts.LOWER, pairs.SPINAL_LOWER),
    "none": (verdicts.NOT_RUN, verdicts.UNPUBLISHED),
}
SYMBOLS = {"good": "✓", "bad": "✗", "none": "-", "open": "?"}


def render(findings: ResultsIndex, judged: Sequence[Judged], figures: Sequence[Drawn]) -> str:
    """The page.

    Args:
        findings: Everything known.
        judged: Claims with their verdicts.
        figures: Drawn figures, in order.
    """
    environment = Environment(
        loader=PackageLoader("spinal_repro.results", "."),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(tone=tone, symbol=lambda word: SYMBOLS[tone(word)])
    return environment.get_template("report.html").render(
        about=ABOUT,
        footer=FOOTER,
        tally=tally(judged),
        progress=_progress(findings),
        claims=_by_group(judged),
        verdicts=list(verdicts.RULES),
        tables=_tables(findings),
        pairs=_table(
            pairs.COLUMNS,
            SHOWN_PAIRS,
            [pairs.row(pair) | {"protocol": pair.spinal.setting} for pair in findings.pairs],
        ),
        sizes=_table(
            sizes.COLUMNS, SHOWN_SIZES, sizes.rows(list(findings.cells.values()), findings.counts)
        ),
        figures=[_figure(figure) for figure in figures],
        rules={name: " ".join(_summary(RULES[name]).split()) for name in RULES.names()},
        cell_rules=verdicts.RULES,
    )


def _shown(value: Any) -> Any:
    """A value as it may stand on the page; markup of the template itself is left alone."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value, keep="\n") if plain else value


def tone(word: str) -> str:
    """Which colour a verdict has: ``good``, ``bad``, ``none`` or ``open``."""
    return next((name for name, words in TONES.items() if word in words), "open")


def _progress(findings: ResultsIndex) -> str:
    """How much of the paper was run, each training counted once."""
    own = [result for result in findings.results if result.runs and not result.cell.best_of]
    full = {result.cell.name for result in own if not result.differences}
    other = {r.cell.name for r in own if not findings.is_subset_of_other_cell(r)} - full
    trainings = {
        (run.identity, run.seed, str(result.cell.regression and _net(result)))
        for result in own
        for run in result.runs
    }
    more = f" and {len(other)} more with a reduced budget or a changed recipe" if other else ""
    return (
        f"Of {len(findings.cells)} published cells {len(full)} were run as published{more}, in "
        f"{len(trainings)} trainings."
    )


def _net(result: ResultGroup) -> tuple[str, str]:
    """What one training of the regression is, whose cells differ in the epochs looked at."""
    assert result.cell.regression is not None
    return result.cell.regression["net"], result.cell.regression["function"]


def _by_group(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    groups: dict[str, list[Judged]] = {}
    for item in judged:
        groups.setdefault(item.claim.group, []).append(item)
    return groups


def _tables(findings: ResultsIndex) -> list[dict[str, Any]]:
    """One table of the paper after another, with a row for each result."""
    tables = []
    for key, title in findings.titles.items():
        results = [result for result in findings.results if result.cell.table == key]
        if not results:
            continue
        known = {c.key: c for c in accuracy.columns(key, results[0].unit)}
        columns = [known[name] for name in SHOWN]
        rows: list[dict[str, Any]] = []
        seen: set[str] = set()
        for result in results:
            cell = result.cell
            setting = {"protocol": result.setting} if result.runs else {}
            identity = f"cell-{cell.name.replace('/', '-')}"
            rows.append(
                {
                    "id": identity if cell.name not in seen else f"{identity}-{len(rows)}",
                    "title": cell.title,
                    "verdict": result.verdict,
                    "cells": _cells(columns, accuracy.row(result) | setting),
                    "detail": describe_cell(result, findings),
                }
            )
            seen.add(cell.name)
        ran = len({result.cell.name for result in results if result.runs})
        tables.append(
            {
                "key": key,
                "title": title,
                "ran": f"{ran} of {len(seen)} cells run",
                "columns": [Column("title", "Cell"), *columns],
                "rows": rows,
            }
        )
    return tables


def _table(
    columns: Sequence[Column], shown: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    known = {column.key: column for column in columns}
    chosen = [known[name] for name in shown]
    return {"columns": chosen, "rows": [_cells(chosen, row) for row in rows]}


def _cells(columns: Sequence[Column], row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Cells of a row: the text, what it is sorted by, and how it looks."""
    cells = []
    for column in columns:
        found = row.get(column.key)
        number = isinstance(found, (int, float))
        cells.append(
            {
                "text": "" if found is None else column.form(found),
                "sort": f"{found:.10g}" if number else None,
                "number": number,
                "badge": column.key == "verdict",
            }
        )
    return cells


def _figure(figure: Drawn) -> dict[str, str]:
    data = base64.b64encode(figure.svg).decode()
    width = re.search(rb'<svg[^>]* width="([\d.]+)pt"', figure.svg)
    return {
        "width": f"{float(width[1]) * 4 / 3:.0f}px" if width else "auto",
        "title": figure.title,
        "caption": figure.caption,
        "data": f"data:image/svg+xml;base64,{data}",
    }


def _summary(function: object) -> str:
    """What a rule's docstring says before its arguments."""
    return (inspect.getdoc(function) or "").split("\nArgs:")[0]
