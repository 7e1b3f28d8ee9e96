"""The report: one self-contained HTML file with claims, tables and figures, always the same bytes.

jinja2 escapes all text, and the page's content security policy forbids any connection.
"""

import base64
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from spinal_repro.io import printable
from spinal_repro.paper.cells import tables
from spinal_repro.records.record import Record
from spinal_repro.results import accuracy, pairs, sizes, verdicts
from spinal_repro.results.claims import judge, tally
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import Item, ResultGroup, Run, grouped
from spinal_repro.results.rules import RULES
from spinal_repro.results.tables import Column

if TYPE_CHECKING:
    from spinal_repro.results.figures import Drawn

CHANGED_SHOWN = 5  # settings of a cell with a changed recipe
LEFT_OUT = ("runtime", "data", "seed", "runs", "cell")  # settings that are not the experiment
# columns of an accuracy table, whose rows have details with the rest; and those left out of others
SHOWN = ("published", "mean", "sd", "n", "low", "high", "difference", "protocol", "verdict")
NOT_OF_PAIRS = (
    "cell", "device", "rule", "family", "share", "p", "only_fc", "only_spinal", "mcnemar",
)  # fmt: skip
NOT_OF_SIZES = ("cell", "body_parameters", "total_parameters", "total_parameters_change", "source")
TONES = (  # of a verdict; the others are open
    dict.fromkeys(("supported", verdicts.REPRODUCED, pairs.BETTER), "good")
    | dict.fromkeys(("contradicted", verdicts.HIGHER, verdicts.LOWER, pairs.WORSE), "bad")
    | dict.fromkeys((verdicts.NOT_RUN, verdicts.UNPUBLISHED), "none")
)
SYMBOLS = {"good": "✓", "bad": "✗", "none": "-", "open": "?"}


def template(name: str) -> Template:
    """Load the template of a page; text in it is escaped."""
    return Environment(
        loader=PackageLoader("spinal_repro.results", "."),
        autoescape=True,
        finalize=lambda value: printable(value, keep="\n") if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template(name)


def render(index: ResultsIndex, figures: "Sequence[Drawn]" = ()) -> str:
    """Write the page."""
    judged = judge(index)
    compared, left = _fold(index.pairs, lambda pair: pair.spinal)
    paired = [pairs.row(pair) | {"protocol": pair.spinal.setting} for pair in compared]
    counted = sizes.rows(index.cells.values(), index.counts)
    of_pairs = [column for column in pairs.COLUMNS if column.key not in NOT_OF_PAIRS]
    of_sizes = [column for column in sizes.COLUMNS if column.key not in NOT_OF_SIZES]
    rules = [(name, inspect.getdoc(RULES[name]) or "") for name in RULES.names()]
    return template("report.html").render(
        tally=tally(judged),
        progress=_progress(index),
        claims=grouped(judged, lambda item: item.claim.group),
        verdicts=list(verdicts.RULES),
        index=index,
        tables=tables(),
        pairs={"columns": of_pairs, "rows": paired, "left": left},
        sizes={"columns": of_sizes, "rows": counted, "left": 0},
        figures=[(base64.b64encode(figure.svg).decode(), figure) for figure in figures],
        rules={name: " ".join(text.split("\nArgs:")[0].split()) for name, text in rules},
        cell_rules=verdicts.RULES,
        pair_rule=pairs.RULE,
        tones=TONES,
        symbols=SYMBOLS,
        number=accuracy.number,
        columns=_columns,
        row=_row,
        config=_config,
        by_commit=_by_commit,
        fold=_fold,
    )


def _fold(
    items: Iterable[Item], result_of: Callable[[Item], Any] = lambda item: item
) -> tuple[list[Item], int]:
    """Drop changed recipes of a cell after the first `CHANGED_SHOWN`, and count those dropped."""
    kept, left, seen = [], 0, Counter[str]()
    for item in items:
        result = result_of(item)
        seen[result.cell.name] += bool(result.differences)
        if result.differences and seen[result.cell.name] > CHANGED_SHOWN:
            left += 1
        else:
            kept.append(item)
    return kept, left


def _by_commit(result: ResultGroup) -> dict[str, list[Run]]:
    """Runs by what they were made with: PyTorch and the commit, with a star if modified."""

    def made_with(run: Run) -> str:
        git, torch = run.record.git, run.record.environment.get("torch", "")
        commit = (git.get("commit") or "")[:10] + "*" * bool(git.get("modified"))
        return f"PyTorch {torch}, commit {commit}"

    return grouped(result.runs, made_with)


def _progress(index: ResultsIndex) -> str:
    own = [result for result in index.results if result.runs and not result.cell.best_of]
    full = {result.cell.name for result in own if not result.differences}
    other = {result.cell.name for result in own} - full
    trainings = set()
    for result in own:
        # cells of the regression differ in the epoch that is looked at, not in the training
        net = result.cell.regression or {}
        for run in result.runs:
            trained = getattr(run.record, "identity", id(run.record))
            trainings.add((trained, run.seed, net.get("net"), net.get("function")))
    more = f" and {len(other)} more with a changed recipe" if other else ""
    return (
        f"Of {len(index.cells)} published cells {len(full)} were run as published{more}, in "
        f"{len(trainings)} trainings."
    )


def _columns(unit: str) -> list[Column]:
    known = {column.key: column for column in accuracy.columns(unit)}
    return [Column("title", "Cell"), *(known[key] for key in SHOWN)]


def _row(result: ResultGroup) -> dict[str, Any]:
    return accuracy.row(result) | ({"protocol": result.setting} if result.runs else {})


def _config(result: ResultGroup) -> str:
    """The configuration of the runs as YAML; that of a regression cell also without runs."""
    record = result.runs[0].record if result.runs else None
    if isinstance(record, Record):
        config = {key: v for key, v in record.config.items() if key not in LEFT_OUT}
    elif result.cell.regression is not None:
        config = {"regression": result.cell.regression}
    else:
        return ""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=88)
