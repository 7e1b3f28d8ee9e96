"""Cells and runs made up for the tests of claims, figures and the report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from helpers.made_records import committed

from spinal_repro.paper.cells import Cell, Published
from spinal_repro.records.compare import Difference
from spinal_repro.records.record import parse_record
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import ResultGroup, Run

CHANGED = Difference.of("recipe.lr", 0.1, 0.01)
COUNTS = {
    "body_parameters": 10,
    "head_parameters": 100,
    "total_parameters": 110,
    "head_multiplications": 90,
    "total_multiplications": 1000,
    "head_activations": 50,
}


def cell(name: str, *, value: float | None = 98.0, unit: str = "%", **more: Any) -> Cell:
    """A cell whose table is the first part of its name."""
    published = Published("accuracy %", value, unit, "last epoch", 8, "a table", "quoted")
    texts = {"title": name, "dataset": "Digits", "backbone": "CNN", "head": "Spinal 4 x 8"} | more
    return Cell(name=name, table=name.partition("/")[0], published=(published,), **texts)


def result(
    of: Cell,
    values: Sequence[float],
    *,
    protocol: str = "paper",
    differences: tuple[Difference, ...] = (),
    curves: Sequence[Sequence[float]] = (),
    **changes: Any,
) -> ResultGroup:
    """Runs of a cell with these values, seeds from 0.

    Args:
        curves: Accuracies by epoch, for each seed.
        changes: Other fields of the records.
    """
    whole = parse_record(committed())
    runs = []
    for seed, value in enumerate(values):
        history = [
            {"test_accuracy": accuracy / 100, "test_loss": 1 - accuracy / 100, "epoch": epoch}
            for epoch, accuracy in enumerate(curves[seed] if curves else [value], 1)
        ]
        right = {"accuracy": value / 100, "correct": round(100 * value), "correct_bits": None}
        part = replace(whole.test.last, **right)
        record = replace(
            whole,
            identity=of.name,
            seed=seed,
            test=replace(whole.test, last=part, selected=part),
            history=history,
            **changes,
        )
        runs.append(Run(record, seed, "cpu", "fp32", len(history), value, value, value,
                        differences=differences))  # fmt: skip
    return ResultGroup(of, protocol, tuple(runs))


def findings(
    cells: Sequence[Cell],
    results: Sequence[ResultGroup] = (),
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> ResultsIndex:
    """What is known of these cells."""
    by_cell = [[r for r in results if r.cell == c] or [ResultGroup(c, "paper", ())] for c in cells]
    counted = {
        name: {**COUNTS, **changed, "source": "model"} for name, changed in (counts or {}).items()
    }
    return ResultsIndex([r for found in by_cell for r in found], counted)


def fc_and_spinal(**more: Any) -> tuple[Cell, Cell]:
    """A cell and the one it is compared with."""
    fc = cell("mnist/fc", head="FC 10", head_kind="fc", **more)
    return fc, cell("mnist/sp", head_kind="spinal", counterpart="mnist/fc", **more)
