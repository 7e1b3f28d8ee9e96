"""Index of cells, runs and counts, from which claims, figures and the report are made."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spinal_repro.errors import UserError, unknown
from spinal_repro.io import read_json
from spinal_repro.paper.cells import Cell, load_cells, tables
from spinal_repro.paper.claims import Claim, load_claims
from spinal_repro.records.convert import from_plain
from spinal_repro.records.record import AnyRecord, GradientRecord, Natural, Record
from spinal_repro.results.cells import group_records_by_cell, own_runs
from spinal_repro.results.outcomes import PAPER, ResultGroup, grouped
from spinal_repro.results.pairs import Pair, as_families, pairs
from spinal_repro.results.sizes import Counts, cell_counts


@dataclass(frozen=True)
class ResultsIndex:
    """Groups of equal runs in the paper's order, and the counts of `sizes.cell_counts`.

    A cell without runs has one group, an empty one. ``claims`` name more pairs to compare.
    """

    results: Sequence[ResultGroup]
    counts: Mapping[str, Counts]
    claims: Sequence[Claim] = ()
    gradients: Sequence[GradientRecord] = ()
    own: Sequence[Record] = ()  # of runs that name no cell

    @cached_property
    def cells(self) -> dict[str, Cell]:
        return {result.cell.name: result.cell for result in self.results}

    @cached_property
    def _by_cell(self) -> Mapping[str, Sequence[ResultGroup]]:
        return grouped(self.results, lambda result: result.cell.name)

    @cached_property
    def _by_cells(self) -> Mapping[tuple[str, str | None], Sequence[Pair]]:
        return grouped(self.pairs, lambda pair: (pair.spinal.cell.name, pair.fc.cell.name))

    @cached_property
    def pairs(self) -> list[Pair]:
        """All comparisons: of cells with their counterparts, and those that claims name."""
        named = {(cell.name, cell.counterpart) for cell in self.cells.values()}
        named |= {names for claim in self.claims for names in claim.comparisons()}
        order = {name: place for place, name in enumerate(self.cells)}
        known = [(a, b) for a, b in named if a in order and b in order]
        known.sort(key=lambda names: (order[names[0]], order[names[1]]))
        return as_families(p for a, b in known for p in pairs(self.runs(a), self.runs(b)))

    def cell(self, name: str) -> Cell:
        if name not in self.cells:
            raise unknown("cell", name, self.cells)
        return self.cells[name]

    def runs(self, name: str, protocol: str | None = None) -> list[ResultGroup]:
        """Groups of equal runs of a cell, the paper's protocol and the fewest differences first."""
        found = self._by_cell[self.cell(name).name]
        return [r for r in found if r.runs and protocol in (None, r.protocol)]

    def by_table(self) -> dict[str, list[ResultGroup]]:
        """Results by table; tables without any are left out."""
        found = grouped(self.results, lambda result: result.cell.table)
        return {name: found[name] for name in tables() if name in found}

    def compared(self, name: str, other: str | None = None) -> list[Pair]:
        """Pair a cell with its counterpart, or another cell: the best pair of each protocol.

        Pairs that follow their cells come first, then those of the paper's protocol.
        """
        names = self.cell(name).name, other or self.cell(name).counterpart
        found = self._by_cells.get(names, ())
        best: dict[str, Pair] = {}
        for pair in sorted(found, key=lambda pair: pair.order):
            best.setdefault(pair.spinal.protocol, pair)
        return sorted(
            best.values(),
            key=lambda pair: (bool(pair.spinal.differences), pair.spinal.protocol != PAPER),
        )

    def matching(self, patterns: Sequence[str]) -> list[Cell]:
        """Cells whose names match one of the patterns (``mnist/*``), in the paper's order.

        A variant of a cell, or one that the paper has no row for, is matched by its full name.
        """
        in_paper = {c.name for c in self.cells.values() if c.published and not c.variant_of}
        found: set[str] = set()
        for pattern in patterns:
            matched = fnmatch.filter(self.cells, pattern)
            if not matched:
                raise unknown("cell", pattern, self.cells)
            found.update(name for name in matched if name == pattern or name in in_paper)
        return [cell for name, cell in self.cells.items() if name in found]

    def with_counterpart(self, patterns: Sequence[str]) -> list[Cell]:
        return [cell for cell in self.matching(patterns) if cell.counterpart is not None]


def build_index(records: Sequence[AnyRecord], counts: Path) -> ResultsIndex:
    """Group records by cell and index them; ``counts`` is of ``spinal params --cells``, if any."""
    counted = {}
    if counts.is_file():
        try:
            counted = from_plain(dict[str, dict[str, Natural]], read_json(counts))
        except UserError as error:
            raise UserError(
                f"{counts}: {error}; make it again: spinal params --cells --out {counts}"
            ) from error
    cells = load_cells()
    results, own = group_records_by_cell(cells, records), own_runs(cells, records)
    gradients = [record for record in records if isinstance(record, GradientRecord)]
    return ResultsIndex(results, cell_counts(results, counted), load_claims(), gradients, own)
