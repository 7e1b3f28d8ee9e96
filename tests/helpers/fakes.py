"""Cells and runs made up for the tests of claims, figures and the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from spinal_repro.paper.cells import Cell, Published
from spinal_repro.results.cells import ResultGroup, Run
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.pairs import pairs

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
    marks: tuple[str, ...] = (),
    reduced: bool = False,
    curves: Sequence[Sequence[float]] = (),
) -> ResultGroup:
    """Runs of a cell with these values, seeds from 0; ``curves`` are accuracies by epoch."""
    runs = []
    for seed, value in enumerate(values):
        accuracies = curves[seed] if curves else [value]
        history = [
            {"test_accuracy": a / 100, "test_loss": 1 - a / 100, "epoch": i}
            for i, a in enumerate(accuracies, 1)
        ]
        test = {"accuracy": value / 100, "correct": round(100 * value), "count": 10000}
        record = {
            "identity": of.name,
            "seed": seed,
            "environment": {"device": "cpu", "torch": "2.0"},
            "git": {"commit": "0123456789abcdef", "modified": False},
            "selection": {"on": "test", "accuracy": value / 100},
            "test": {"last": test, "selected": test},
            "history": history,
        }
        runs.append(Run(record, seed, "cpu", "fp32", len(history), value, value, value, None,
                        marks, reduced))  # fmt: skip
    return ResultGroup(of, protocol, tuple(runs))


def findings(
    cells: Sequence[Cell],
    results: Sequence[ResultGroup] = (),
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> ResultsIndex:
    """What is known of these cells; tables are called as their keys."""
    missing = [ResultGroup(c, "paper", ()) for c in cells if all(r.cell != c for r in results)]
    every = [*results, *missing]
    return ResultsIndex(
        {c.name: c for c in cells},
        every,
        pairs(every),
        {name: (COUNTS | dict(changed), "model") for name, changed in (counts or {}).items()},
        {table: table for table in dict.fromkeys(c.table for c in cells)},
    )


def fc_and_spinal(**more: Any) -> tuple[Cell, Cell]:
    """A cell and the one it is compared with."""
    fc = cell("mnist/fc", head="FC 10", head_kind="fc", **more)
    return fc, cell("mnist/sp", head_kind="spinal", counterpart="mnist/fc", **more)
