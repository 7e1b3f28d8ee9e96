"""Grouping records by published cell: a record belongs to the cell that it names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spinal_repro.paper.cells import Cell, claimed_differences
from spinal_repro.records.compare import BUDGET, Difference, differences
from spinal_repro.records.record import AnyRecord, Record, RegressionRecord
from spinal_repro.results.outcomes import NON_REFERENCE_NUMERICS, PAPER, ResultGroup, Run


def group_records_by_cell(cells: Sequence[Cell], records: Iterable[AnyRecord]) -> list[ResultGroup]:
    """Group records by cell and settings, without those that name no cell or cut the budget.

    Each cell has at least one group: protocol ``paper`` first, then by the number of differences.
    """
    by_name = {cell.name: cell for cell in cells}
    runs: dict[str, list[tuple[str, Run]]] = {cell.name: [] for cell in cells}
    for record in records:
        if isinstance(record, RegressionRecord):
            for cell in cells:
                runs[cell.name] += [(PAPER, run) for run in regression_runs(cell, record)]
        elif isinstance(record, Record) and (named := cell_of(record, by_name)) is not None:
            runs[named.name].append((record.protocol, _run(named, record)))
    claimed = claimed_differences(cells)
    results = {c.name: _groups(c, runs[c.name], claimed.get(c.name)) for c in cells}
    for cell in cells:
        if cell.best_of and not runs[cell.name]:
            others = [result for name in cell.best_of for result in results.get(name, ())]
            results[cell.name] = _best(cell, others)
    return [result for cell in cells for result in results[cell.name]]


def cell_of(record: Record, cells: Mapping[str, Cell]) -> Cell | None:
    """Find the cell that a record names, if it is one of these."""
    named = cells.get(record.cell or "")
    return named if named and named.compose else None


def own_runs(cells: Sequence[Cell], records: Iterable[AnyRecord]) -> list[Record]:
    """Select the records of runs that name none of the cells."""
    by_name = {cell.name: cell for cell in cells}
    return [r for r in records if isinstance(r, Record) and cell_of(r, by_name) is None]


def _run(cell: Cell, record: Record) -> Run:
    test, selection = record.test, record.selection
    assert cell.config is not None and test is not None  # see `read_records`
    best = test.best_on_test
    return Run(
        record=record,
        seed=record.seed,
        device=record.device,
        precision=record.precision,
        epochs=record.epochs,
        selected=100 * test.selected.correct / test.selected.count,
        last=100 * test.last.correct / test.last.count,
        best_on_test=None if best is None else round(100 * best.accuracy, 10),
        validation=round(100 * selection.accuracy, 10) if selection.on == "val" else None,
        differences=differences(record.config, cell.config),
    )


def regression_runs(cell: Cell, record: RegressionRecord) -> list[Run]:
    """Select the runs of a regression record for a cell, at its number of epochs.

    The normal net has no Spinal layers: its runs count whichever layers the record has (Q2).
    """
    wanted = cell.regression
    if wanted is None or wanted.get("layers") not in (None, record.settings.layers):
        return []
    settings = wanted["net"], wanted["function"], wanted["epochs"]
    target, device = record.settings.target, str(record.environment["device"])
    changed = () if target == "column" else (Difference.of("target", target, "column"),)
    found = [row for row in record.runs if (row.net, row.function, row.epochs) == settings]
    values = [(row, 1000 * row.published_metric) for row in found]
    return [
        Run(record, row.seed, device, "fp32", row.epochs, value, value, differences=changed)
        for row, value in values
    ]


def _groups(
    cell: Cell, found: Iterable[tuple[str, Run]], claimed: float | None
) -> list[ResultGroup]:
    """Group runs with equal settings; of runs with the same seed keep the first."""
    groups: dict[tuple[Any, ...], dict[int, Run]] = {}
    for protocol, run in found:
        if any(difference.kind == BUDGET for difference in run.differences):
            continue
        numerics = run.device, run.precision
        unlike = tuple(name in NON_REFERENCE_NUMERICS for name in numerics)
        order = protocol != PAPER, protocol, len(run.differences), unlike
        groups.setdefault((*order, numerics, run.differences), {}).setdefault(run.seed, run)
    found_groups = [
        ResultGroup(cell, key[1], tuple(runs[seed] for seed in sorted(runs)), claimed)
        for key, runs in sorted(groups.items())
    ]
    return found_groups or [ResultGroup(cell, PAPER, (), claimed)]


def _best(cell: Cell, others: Sequence[ResultGroup]) -> list[ResultGroup]:
    """Find the highest mean of other cells, by protocol, where all of them were run."""
    found = []
    for protocol in sorted({result.protocol for result in others if result.runs}, reverse=True):
        ran = [r for r in others if r.runs and r.protocol == protocol and not r.differences]
        if {result.cell.name for result in ran} >= set(cell.best_of):
            best = max(ran, key=lambda result: result.mean)
            found.append(ResultGroup(cell, protocol, best.runs))
    return found or [ResultGroup(cell, PAPER, ())]
