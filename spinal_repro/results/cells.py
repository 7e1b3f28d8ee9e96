"""Records seen from the published cells: which run counts for which number.

A record belongs to the cell that it names. What it does differently (see `differences`) is a mark
of its row.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spinal_repro.errors import UserError
from spinal_repro.records.compare import differences, reductions
from spinal_repro.records.record import refuse_other_shapes
from spinal_repro.results.outcomes import (
    AT_BEST_VALIDATION,
    BEST_ON_TEST,
    BEST_VALIDATION,
    LAST,
    LOWEST,
    NON_REFERENCE_NUMERICS,
    PAPER,
    ResultGroup,
    Run,
)

if TYPE_CHECKING:
    from spinal_repro.paper.cells import Cell

__all__ = [
    "AT_BEST_VALIDATION",
    "BEST_ON_TEST",
    "BEST_VALIDATION",
    "LAST",
    "LOWEST",
    "PAPER",
    "ResultGroup",
    "Run",
    "cell_of",
    "match",
    "own_runs",
]

SETTINGS = ("dataset", "model", "head", "recipe", "protocol", "data")  # that marks depend on
REGRESSION_SETTINGS = {"target": "column", "layers": "distinct"}


def match(cells: Sequence["Cell"], records: Iterable[Mapping[str, Any]]) -> list[ResultGroup]:
    """Sort records into cells.

    Args:
        cells: From `spinal_repro.paper.cells.load_cells`.
        records: From `spinal_repro.records.store.read_records`; those that name no cell are left
            out, see `own_runs`.

    Returns:
        In the order of the cells, at least one result each: ``paper`` first, then as little
        changed as possible.
    """
    by_name = {cell.name: cell for cell in cells}
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
        named = cell_of(record, by_name)
        if named is not None:
            protocol = record["config"]["protocol"]["name"]
            runs[named.name].append((protocol, _run(named, record, known)))
    results = {cell.name: _results(cell, runs[cell.name]) for cell in cells}
    for cell in cells:
        if cell.best_of and not runs[cell.name]:
            others = [result for name in cell.best_of for result in results.get(name, ())]
            results[cell.name] = _best(cell, others)
    return [result for cell in cells for result in results[cell.name]]


def cell_of(record: Mapping[str, Any], cells: Mapping[str, "Cell"]) -> "Cell | None":
    """The cell that the record of a run names; None where it names none of these.

    Args:
        record: Of one run.
        cells: By name.
    """
    named = cells.get(record["config"].get("cell") or "")
    return None if named is None or named.compose is None else named


def own_runs(
    cells: Sequence["Cell"], records: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Records of runs that name none of the cells: their configuration was composed by hand.

    Args:
        cells: From `spinal_repro.paper.cells.load_cells`.
        records: From `spinal_repro.records.store.read_records`.
    """
    by_name = {cell.name: cell for cell in cells}
    runs = [record for record in records if record.get("kind") != "regression"]
    return [record for record in runs if cell_of(record, by_name) is None]


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


def _results(cell: "Cell", found: Iterable[tuple[str, Run]]) -> list[ResultGroup]:
    """Equal runs together; of runs with the same seed the first counts."""
    groups: dict[tuple[Any, ...], dict[int, Run]] = {}
    for protocol, run in found:
        unlike = run.device in NON_REFERENCE_NUMERICS, run.precision in NON_REFERENCE_NUMERICS
        key = (
            *(protocol != PAPER, protocol, len(run.marks), *unlike),
            *(run.device, run.precision, run.marks),
        )
        groups.setdefault(key, {}).setdefault(run.seed, run)
    if not groups:
        return [ResultGroup(cell, PAPER, ())]
    return [
        ResultGroup(cell, key[1], tuple(runs[seed] for seed in sorted(runs)))
        for key, runs in sorted(groups.items())
    ]


def _best(cell: "Cell", others: Sequence[ResultGroup]) -> list[ResultGroup]:
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
        found.append(ResultGroup(cell, protocol, runs))
    return found or [ResultGroup(cell, PAPER, ())]
