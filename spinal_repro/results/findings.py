"""What claims, figures and the report are made from: cells, their runs, and counts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinal_repro.errors import UserError, unknown
from spinal_repro.files import read_json

if TYPE_CHECKING:
    from spinal_repro.paper import Cell
    from spinal_repro.results.cells import CellResult

PROTOCOLS = ("paper", "heldout")
COUNTS = "counts.json"


@dataclass(frozen=True)
class Findings:
    """Everything known about the paper's cells.

    Attributes:
        cells: By name, in the paper's order.
        results: Of `match`, by name of the cell; those without runs may be there or not.
        counts: Parameters, multiplications and activations by name of the cell; may lack some.
        titles: Titles of the tables by name, in the paper's order.
    """

    cells: Mapping[str, "Cell"]
    results: Mapping[str, Sequence["CellResult"]]
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)

    def cell(self, name: str) -> "Cell":
        """A cell.

        Raises:
            UserError: where there is none of that name.
        """
        if name not in self.cells:
            raise unknown("cell", name, self.cells)
        return self.cells[name]

    def runs(self, name: str, protocol: str | None = None) -> list["CellResult"]:
        """Groups of equal runs of a cell, as little changed as possible first.

        Args:
            name: Of the cell.
            protocol: One alone, or all.
        """
        found = self.results.get(self.cell(name).name, ())
        return [r for r in found if r.runs and protocol in (None, r.protocol)]

    def matching(self, patterns: Sequence[str]) -> list["Cell"]:
        """Cells whose names match one of the patterns (``mnist/*``), in the paper's order.

        Raises:
            UserError: where a pattern matches nothing.
        """
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in self.cells):
                raise unknown("cell", pattern, self.cells)
        return [
            cell
            for name, cell in self.cells.items()
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        ]

    def pairs(self, patterns: Sequence[str] = ("*",)) -> Iterator[tuple["Cell", "Cell"]]:
        """Cells that match and the cells they are compared with."""
        for cell in self.matching(patterns):
            if cell.counterpart is not None:
                yield cell, self.cell(cell.counterpart)


def gather(records: Sequence[Mapping[str, Any]], counts: Path) -> Findings:
    """Findings about all cells.

    Args:
        records: From `spinal_repro.records.read_records`.
        counts: A file of counts, see `read_counts`.
    """
    from spinal_repro.paper import TABLES, load_cells
    from spinal_repro.results.cells import match

    cells = load_cells()
    results: dict[str, list[CellResult]] = {}
    for result in match(cells, records):
        results.setdefault(result.cell.name, []).append(result)
    every = [result for found in results.values() for result in found]
    return Findings(
        {cell.name: cell for cell in cells}, results, read_counts(counts, every), TABLES
    )


def read_counts(path: Path, results: Sequence["CellResult"]) -> dict[str, dict[str, int]]:
    """Counts of the cells: from the runs' own records, else from a table of counts.

    Args:
        path: A JSON file of counts by name of the cell; need not be there.
        results: Cells with their runs.

    Raises:
        UserError: where the file cannot be read.
    """
    counts: dict[str, dict[str, int]] = {}
    if path.is_file():
        try:
            counts.update(_by_cell(read_json(path)))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"the counts in {path} cannot be read: {error}") from error
    for result in results:
        for run in result.runs:
            if not run.marks and run.record.get("counts"):
                counts[result.cell.name] = dict(run.record["counts"])
                break
    return counts


def _by_cell(table: Any) -> dict[str, dict[str, int]]:
    return {str(name): dict(counts) for name, counts in table.items()}
