"""What claims, figures and the report are made from: cells, their runs, and counts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinal_repro.errors import UserError, unknown
from spinal_repro.io import read_json
from spinal_repro.records.record import refuse_other_counts
from spinal_repro.results.cells import PAPER, ResultGroup, match
from spinal_repro.results.pairs import Pair, pairs
from spinal_repro.results.sizes import cell_counts

if TYPE_CHECKING:
    from spinal_repro.paper.cells import Cell


@dataclass(frozen=True)
class ResultsIndex:
    """Everything known about the paper's cells.

    Attributes:
        cells: By name, in the paper's order.
        results: Of `cells.match`; those without runs may be there or not.
        pairs: Of `pairs.pairs`: FC against Spinal.
        counts: By name of the cell, with where they were counted; may lack some.
        titles: Titles of the tables by name, in the paper's order.
    """

    cells: Mapping[str, "Cell"]
    results: Sequence[ResultGroup] = ()
    pairs: Sequence[Pair] = ()
    counts: Mapping[str, tuple[Mapping[str, int], str]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)

    def cell(self, name: str) -> "Cell":
        """A cell.

        Raises:
            UserError: where there is none of that name.
        """
        if name not in self.cells:
            raise unknown("cell", name, self.cells)
        return self.cells[name]

    def runs(self, name: str, protocol: str | None = None) -> list[ResultGroup]:
        """Groups of equal runs of a cell, as little changed as possible first.

        Args:
            name: Of the cell.
            protocol: One alone, or all, the paper's first.
        """
        known = self.cell(name).name
        return [
            r for r in self._by_cell.get(known, ()) if r.runs and protocol in (None, r.protocol)
        ]

    @cached_property
    def _by_cell(self) -> dict[str, list[ResultGroup]]:
        found: dict[str, list[ResultGroup]] = {}
        for result in self.results:
            found.setdefault(result.cell.name, []).append(result)
        return found

    def compared(self, name: str, other: str | None = None) -> list[Pair]:
        """A cell beside its counterpart, once for each protocol that both were run under.

        Of several such pairs, the one with the fewest changes from the cells, then one that
        computes as the paper did, then the one with the most seeds.

        Args:
            name: Of the cell.
            other: Name of a cell to stand in the place of the counterpart.
        """
        best: dict[str, Pair] = {}
        for pair in self.pairs if other is None else pairs(self.results, {name: other}):
            if pair.spinal.cell.name == name:
                kept = best.setdefault(pair.spinal.protocol, pair)
                if _preference(pair) > _preference(kept):
                    best[pair.spinal.protocol] = pair
        return sorted(best.values(), key=lambda pair: pair.spinal.protocol != PAPER)

    def is_subset_of_other_cell(self, result: ResultGroup) -> bool:
        """Whether runs that are short of this cell are just what another cell asks for.

        The first 8 of 20 epochs are also all of 8: where each training is shown once, there.
        """
        runs = {(run.record.get("identity"), run.seed) for run in result.runs}
        return bool(result.marks) and runs <= self._as_published

    @cached_property
    def _as_published(self) -> set[tuple[Any, int]]:
        whole = [result for result in self.results if not result.marks]
        return {(run.record.get("identity"), run.seed) for result in whole for run in result.runs}

    def count(self, name: str, quantity: str) -> int | None:
        """A count of a cell's model; None where it has not been counted."""
        counts, _ = self.counts.get(self.cell(name).name, ({}, ""))
        return counts.get(quantity)

    def matching(self, patterns: Sequence[str]) -> list["Cell"]:
        """Cells whose names match one of the patterns (``mnist/*``), in the paper's order.

        Another reading of a cell, e.g. as committed, counts only where it is named in full.

        Raises:
            UserError: where a pattern matches nothing.
        """
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in self.cells):
                raise unknown("cell", pattern, self.cells)
        return [
            cell
            for name, cell in self.cells.items()
            if name in patterns
            or (not cell.variant_of and any(fnmatchcase(name, pattern) for pattern in patterns))
        ]

    def with_counterpart(self, patterns: Sequence[str] = ("*",)) -> list["Cell"]:
        """Cells that match and have a counterpart to be compared with."""
        return [cell for cell in self.matching(patterns) if cell.counterpart is not None]


def _preference(pair: Pair) -> tuple[int, bool, int]:
    return -len(pair.spinal.marks), not pair.spinal.numerics, len(pair.seeds)


def index_results(
    results: Sequence[ResultGroup],
    counted: Mapping[str, Mapping[str, int]],
    titles: Mapping[str, str],
) -> ResultsIndex:
    """ResultsIndex from results.

    Args:
        results: From `cells.match`, of all cells.
        counted: Counts by name of the cell; those of runs come first.
        titles: Titles of the tables by name.
    """
    cells = {result.cell.name: result.cell for result in results}
    return ResultsIndex(cells, results, pairs(results), cell_counts(results, counted), titles)


def build_index(records: Iterable[Mapping[str, Any]], counts: Path) -> ResultsIndex:
    """ResultsIndex about all cells.

    Args:
        records: From `spinal_repro.records.store.read_records`.
        counts: A JSON file of counts by name of the cell; need not be there.

    Raises:
        UserError: where the counts cannot be read.
    """
    from spinal_repro.paper.cells import load_cells, table_titles

    results = match(load_cells(), records)
    return index_results(results, read_counts(counts) if counts.is_file() else {}, table_titles())


def read_counts(path: Path) -> dict[str, dict[str, int]]:
    """Counts by name of the cell, as ``spinal params --cells`` writes them.

    Raises:
        UserError: where the file cannot be read or holds anything else.
    """
    try:
        counts = read_json(path)
        refuse_other_counts(counts, str(path))
    except UserError as error:
        raise UserError(f"{error}; rebuild it: spinal params --cells --out {path}") from error
    return dict(counts)
