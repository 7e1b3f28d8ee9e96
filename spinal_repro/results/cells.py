"""Records seen from the published cells: which run counts for which number.

A record belongs to the cell that it names, or, where it names none, to every cell trained in the
same way (see `differences`). What it does differently is a mark of its row.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spinal_repro.errors import UserError
from spinal_repro.record_shape import refuse_other_shapes
from spinal_repro.results.differences import differences, reductions, training_key
from spinal_repro.results.outcomes import (
    AT_BEST_VALIDATION,
    BEST_ON_TEST,
    BEST_VALIDATION,
    LAST,
    LOWEST,
    PAPER,
    UNLIKE,
    CellResult,
    Run,
)

if TYPE_CHECKING:
    from spinal_repro.paper import Cell

__all__ = [
    "AT_BEST_VALIDATION",
    "BEST_ON_TEST",
    "BEST_VALIDATION",
    "LAST",
    "LOWEST",
    "PAPER",
    "CellResult",
    "Owners",
    "Run",
    "match",
]

SETTINGS = ("dataset", "model", "head", "recipe", "protocol", "data")  # that marks depend on
REGRESSION_SETTINGS = {"target": "column", "layers": "distinct"}


def match(cells: Sequence["Cell"], records: Iterable[Mapping[str, Any]]) -> list[CellResult]:
    """Sort records into cells.

    Args:
        cells: From `spinal_repro.paper.load_cells`.
        records: From `spinal_repro.records.read_records`; those that belong to no cell are left
            out.

    Returns:
        In the order of the cells, at least one result each: ``paper`` first, then as little
        changed as possible.
    """
    owner = Owners(cells)
    runs: dict[str, list[tuple[str, Run]]] = {cell.name: [] for cell in cells}
    known: dict[str, Marks] = {}
    regression = [cell for cell in cells if cell.regression is not None]
    for record in records:
        what = f"the record {record.get('run') or record.get('identity')}"
        refuse_other_shapes(record, what)
        if record.get("kind") == "regression":
            for cell in regression:
                runs[cell.name] += [(PAPER, run) for run in _regression_runs(cell, record)]
            continue
        if record.get("test") is None:
            raise UserError(f"{what} is not built as a record: it lacks test")
        for cell in owner.of(record):
            protocol = record["config"]["protocol"]["name"]
            runs[cell.name].append((protocol, _run(cell, record, known)))
    results = {cell.name: _results(cell, runs[cell.name]) for cell in cells}
    for cell in cells:
        if cell.best_of and not runs[cell.name]:
            others = [result for name in cell.best_of for result in results.get(name, ())]
            results[cell.name] = _best(cell, others)
    return [result for cell in cells for result in results[cell.name]]


class Owners:
    """Finds the cells that a record counts for.

    Configurations of cells take a moment to compose, so they are asked for as late as possible:
    a record that names its cell needs that one alone.
    """

    def __init__(self, cells: Sequence["Cell"]) -> None:
        self._by_name = {cell.name: cell for cell in cells}

    @functools.cached_property
    def _by_key(self) -> dict[str, list["Cell"]]:
        found: dict[str, list[Cell]] = {}
        for cell in self._by_name.values():
            if cell.config is not None:
                found.setdefault(training_key(cell.config), []).append(cell)
        return found

    def of(self, record: Mapping[str, Any]) -> list["Cell"]:
        """The cell that a record names, else every cell that is trained in the same way.

        Args:
            record: Of one run.
        """
        config = record["config"]
        named = self._by_name.get(config.get("cell") or "")
        if named is not None and named.config is not None:
            return [named]
        epochs = config["recipe"]["epochs"]
        alike = self._by_key.get(training_key(config), [])
        return [cell for cell in alike if epochs <= cell.config["recipe"]["epochs"]]


Marks = tuple[list[str], list[str]]


def _marks(cell: "Cell", config: Mapping[str, Any], known: dict[str, Marks]) -> Marks:
    """How a run is shorter than its cell and how it differs; looked up for further seeds."""
    assert cell.config is not None
    changing = {key: config.get(key) for key in SETTINGS}
    key = f"{cell.name} {json.dumps(changing, sort_keys=True)}"
    if key not in known:
        known[key] = reductions(config, cell.config), differences(config, cell.config)
    return known[key]


def _run(cell: "Cell", record: Mapping[str, Any], known: dict[str, Marks]) -> Run:
    config, test, selection = record["config"], record["test"], record["selection"]
    less, other = _marks(cell, config, known)
    best = test.get("best_on_test")
    on_val = selection["on"] == "val"
    return Run(
        record=dict(record),
        seed=record["seed"],
        device=record["environment"]["device"],
        precision=config["runtime"]["precision"],
        epochs=config["recipe"]["epochs"],
        selected=_percent(test["selected"]),
        last=_percent(test["last"]),
        best_on_test=None if best is None else round(100 * best["accuracy"], 10),
        validation=round(100 * selection["accuracy"], 10) if on_val else None,
        marks=(*less, *other),
        reduced=bool(less),
    )


def _percent(part: Mapping[str, Any]) -> float:
    return float(100 * part["correct"] / part["count"])


def _regression_runs(cell: "Cell", record: Mapping[str, Any]) -> list[Run]:
    """The runs of a regression record that count for a cell, at its number of epochs or below."""
    wanted = cell.regression
    if wanted is None:
        return []
    rows = [
        row
        for row in record["runs"]
        if (row["net"], row["function"]) == (wanted["net"], wanted["function"])
        and row["epochs"] <= wanted["epochs"]
    ]
    epochs = max((row["epochs"] for row in rows), default=0)
    less = [f"{epochs} of {wanted['epochs']} epochs"] if epochs < wanted["epochs"] else []
    settings = record["settings"]
    other = [
        f"{key} {settings[key]} instead of {usual}"
        for key, default in REGRESSION_SETTINGS.items()
        if settings[key] != (usual := wanted.get(key, default))
    ]
    return [
        Run(
            record=dict(record),
            seed=row["seed"],
            device=record["environment"]["device"],
            precision="fp32",
            epochs=epochs,
            selected=1000 * row["published_metric"],
            last=1000 * row["published_metric"],
            best_on_test=None,
            validation=None,
            marks=(*less, *other),
            reduced=bool(less),
        )
        for row in rows
        if row["epochs"] == epochs
    ]


def _results(cell: "Cell", found: Iterable[tuple[str, Run]]) -> list[CellResult]:
    """Equal runs together; of runs with the same seed the first counts."""
    groups: dict[tuple[Any, ...], dict[int, Run]] = {}
    for protocol, run in found:
        unlike = run.device in UNLIKE, run.precision in UNLIKE
        key = (
            *(protocol != PAPER, protocol, len(run.marks), *unlike),
            *(run.device, run.precision, run.marks),
        )
        groups.setdefault(key, {}).setdefault(run.seed, run)
    if not groups:
        return [CellResult(cell, PAPER, ())]
    return [
        CellResult(cell, key[1], tuple(runs[seed] for seed in sorted(runs)))
        for key, runs in sorted(groups.items())
    ]


def _best(cell: "Cell", others: Sequence[CellResult]) -> list[CellResult]:
    """The result of a cell that is the best of others: their highest mean, whole runs first.

    As long as some of the others have not been run whole, it is the best of too few.
    """
    found = []
    for protocol in sorted({result.protocol for result in others if result.runs}, reverse=True):
        ran = [result for result in others if result.runs and result.protocol == protocol]
        whole = [result for result in ran if not result.marks]
        best = max(whole or ran, key=lambda result: result.mean or 0.0)
        names = {result.cell.name for result in whole}
        runs = best.runs
        if len(names) < len(cell.best_of):
            mark = f"best of {len(names)} of {len(cell.best_of)} cells"
            runs = tuple(replace(r, marks=(*r.marks, mark), reduced=True) for r in runs)
        found.append(CellResult(cell, protocol, runs))
    return found or [CellResult(cell, PAPER, ())]
