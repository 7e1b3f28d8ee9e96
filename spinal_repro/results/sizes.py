"""The table of parameters and multiplications, each model beside its fully connected baseline."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spinal_repro.paper.cells import Cell
from spinal_repro.records.record import Record
from spinal_repro.results.accuracy import CELL_COLUMNS, who
from spinal_repro.results.outcomes import ResultGroup
from spinal_repro.results.tables import COUNT, SIGNED, Column

Counts = Mapping[str, Any]
COMPARED = ("head_parameters", "total_parameters", "head_multiplications", "total_multiplications")


def cell_counts(results: Sequence[ResultGroup], counted: Mapping[str, Counts]) -> dict[str, Counts]:
    """Return the counts of each cell's model, from its records, else from ``counted``.

    Runs that differ from their cell do not count.
    """
    found: dict[str, Counts] = {}
    for result in results:
        name, record = result.cell.name, result.runs[0].record if result.runs else None
        if isinstance(record, Record) and not result.differences and not result.cell.best_of:
            found.setdefault(name, {**record.counts, "source": "records"})
        elif name in counted:
            found.setdefault(name, {**counted[name], "source": "model"})
    return found


def rows(cells: Iterable[Cell], counts: Mapping[str, Counts]) -> list[dict[str, Any]]:
    """One row for each cell with known counts, beside its fully connected counterpart."""
    return [
        who(cell) | compare(counts[cell.name], counts.get(cell.counterpart or ""))
        for cell in cells
        if cell.name in counts
    ]


def compare(counts: Counts, base: Counts | None) -> dict[str, Any]:
    """Add to counts their changes in percent against the baseline, if there is one."""
    changes = {
        f"{key}_change": 100 * (counts[key] / base[key] - 1) if base[key] else None
        for key in COMPARED
        if base is not None
    }
    return {**counts, **changes}


_CHANGE = "change in percent against the fully connected cell, where there is one"
_EXECUTED = "multiplications of the head for one image; a layer called twice counts twice"

COUNTS = (
    Column("body_parameters", "Body params", "trainable parameters of the backbone", COUNT),
    Column("head_parameters", "Head params", "trainable parameters of the head", COUNT),
    Column("head_parameters_change", "vs FC %", _CHANGE, SIGNED),
    Column("total_parameters", "Total params", "both together", COUNT),
    Column("total_parameters_change", "vs FC %", _CHANGE, SIGNED),
    Column("head_multiplications", "Head mult", _EXECUTED, COUNT),
    Column("head_multiplications_change", "vs FC %", _CHANGE, SIGNED),
    Column("total_multiplications", "Total mult", "with those of the backbone", COUNT),
    Column("total_multiplications_change", "vs FC %", _CHANGE, SIGNED),
    Column("head_activations", "Activations", "hidden units of the head, logits not counted"),
)
COLUMNS = (
    *CELL_COLUMNS,
    *COUNTS,
    Column("source", "Counted in", "records of training runs, or the model built for counting"),
)
