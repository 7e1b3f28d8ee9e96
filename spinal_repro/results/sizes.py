"""The table of parameters and multiplications of every cell's model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spinal_repro.records.record import Record
from spinal_repro.results.accuracy import WHO
from spinal_repro.results.outcomes import ResultGroup
from spinal_repro.results.tables import Column

if TYPE_CHECKING:
    from spinal_repro.paper.cells import Cell

Counts = Mapping[str, int]
COMPARED = ("head_parameters", "total_parameters", "head_multiplications", "total_multiplications")


def cell_counts(
    results: Sequence[ResultGroup], counted: Mapping[str, Counts]
) -> dict[str, tuple[Counts, str]]:
    """The counts of each cell's model, and where they come from: ``records`` or ``model``.

    Args:
        results: From `cells.match`; only runs that follow their cell count.
        counted: Counts by cell, computed beforehand from the models without training.
    """
    found: dict[str, tuple[Counts, str]] = {}
    for result in results:
        name = result.cell.name
        if name in found:
            continue
        record = result.runs[0].record if result.runs else None
        as_published = result.reduced or not result.differences
        if isinstance(record, Record) and as_published and not result.cell.best_of:
            found[name] = (record.counts, "records")
        elif name in counted:
            found[name] = (counted[name], "model")
    return found


def rows(cells: Sequence["Cell"], counts: Mapping[str, tuple[Counts, str]]) -> list[dict[str, Any]]:
    """One row a cell whose counts are known, beside its fully connected counterpart.

    Args:
        cells: All cells, in order.
        counts: From `cell_counts`.
    """
    found = []
    for cell in cells:
        if cell.name not in counts:
            continue
        mine, source = counts[cell.name]
        row: dict[str, Any] = {
            "cell": cell.name,
            "dataset": cell.dataset,
            "backbone": cell.backbone,
        }
        base = counts.get(cell.counterpart or "")
        changes = (
            {} if base is None else {f"{k}_change": _change(mine, base[0], k) for k in COMPARED}
        )
        found.append({**row, "head": cell.head, **mine, **changes, "source": source})
    return found


def _change(mine: Counts, base: Counts, key: str) -> float | None:
    return 100 * (mine[key] / base[key] - 1) if base[key] else None


def _number(value: int) -> str:
    return f"{value:,}"


def _percent(value: float) -> str:
    return f"{value:+.2f}"


_CHANGE = "change in percent against the fully connected cell, where there is one"

COLUMNS = (
    *WHO,
    Column("body_parameters", "Body params", "trainable parameters of the backbone", _number),
    Column("head_parameters", "Head params", "trainable parameters of the head", _number),
    Column("head_parameters_change", "vs FC %", _CHANGE, _percent),
    Column("total_parameters", "Total params", "both together", _number),
    Column("total_parameters_change", "vs FC %", _CHANGE, _percent),
    Column(
        "head_multiplications",
        "Head mult",
        "multiplications of the head for one image; a layer called twice counts twice",
        _number,
    ),
    Column("head_multiplications_change", "vs FC %", _CHANGE, _percent),
    Column("total_multiplications", "Total mult", "with those of the backbone", _number),
    Column("total_multiplications_change", "vs FC %", _CHANGE, _percent),
    Column("head_activations", "Activations", "hidden units of the head, logits not counted"),
    Column("source", "Counted in", "records of training runs, or the model built for counting"),
)
