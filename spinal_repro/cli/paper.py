"""``spinal paper list`` and ``plan``, and two experiments: ``regression`` and ``gradients``."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spinal_repro.cli.spinal import (
    FORMAT,
    RECORDS,
    RUNS_HELP,
    command,
    count,
    folder,
    new_file,
    option,
    runs_folder,
)
from spinal_repro.config.compose import compose
from spinal_repro.paper.cells import Cell, load_cells
from spinal_repro.records.store import read_records
from spinal_repro.results.tables import Column, render
from spinal_repro.sweep.runner import usable_cores

ACCURACY = "accuracy in percent; of the regression, MSE in 1e-3"
TIME = "training steps and one evaluation per epoch; without reading and preprocessing of data"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f}"


def _number(value: float) -> str:
    return f"{value:.2f}" if round(value, 2) == value else f"{value:g}"


LIST_COLUMNS = (
    Column("cell", "Cell", "to train it: spinal-train paper=CELL"),
    Column("published", "Published", ACCURACY, _number),
    Column("confidence", "Confidence", "of the published number"),
    Column("epochs", "Epochs", "as published"),
    Column("state", "State", "finished runs, by protocol; or why there are none"),
)
PLAN_COLUMNS = (
    Column("cell", "Cell"),
    Column("left", "Left", "runs not finished"),
    Column("epochs", "Epochs", "of one run"),
    Column("step", "ms/step", "one training step, measured on random images", "{:.0f}".format),
    Column("seconds", "Hours", TIME, _hours),
)
PLACES = (
    option("--runs", type=folder, default=runs_folder, help=RUNS_HELP),
    option("--records", type=folder, default=RECORDS,
           help="committed records (default: %(default)s)"),
)  # fmt: skip


@command(
    "paper list",
    option("pattern", nargs="?", default="*", help="e.g. mnist, 'mnist/*vgg5*'"),
    FORMAT,
    *PLACES,
)
def print_list(given: argparse.Namespace) -> None:
    """List the cells with their published numbers and finished runs."""
    cells = load_cells(given.pattern)
    done = finished(cells, [given.runs, given.records])
    rows = []
    for cell in cells:
        row: dict[str, Any] = {"cell": cell.name, "state": state(cell, done[cell.name])}
        for one in cell.published[:1]:
            row |= {"published": one.value, "confidence": one.confidence, "epochs": one.epochs}
        rows.append(row)
    print(render(LIST_COLUMNS, rows, given.format))


def finished(cells: Sequence[Cell], folders: Sequence[Path]) -> dict[str, Counter[str]]:
    """Count the seeds finished without differences, by cell and protocol."""
    from spinal_repro.results.cells import group_records_by_cell

    found: dict[str, Counter[str]] = {cell.name: Counter() for cell in cells}
    records = read_records([folder for folder in folders if folder.is_dir()], history=False)
    for result in group_records_by_cell(cells, records):
        if not result.differences:
            counted = found[result.cell.name]
            counted[result.protocol] = max(counted[result.protocol], result.n)
    return found


def state(cell: Cell, done: Counter[str]) -> str:
    """Describe which runs of a cell are finished, or why it has none."""
    if cell.not_runnable:
        return f"not runnable: {cell.not_runnable}"
    if cell.best_of:
        return f"the best of {len(cell.best_of)} cells"
    counts = [f"{done[name]} ({name})" for name in sorted(done, reverse=True) if done[name]]
    return f"run {', '.join(counts)}" if counts else "not run"


@command(
    "paper plan",
    option("pattern", metavar="TABLE", help="a table, or a pattern of cells"),
    option("--seeds", type=count, default=1, help="runs of each cell (default: 1)"),
    option("--protocol", choices=("paper", "heldout"), help="default: that of each cell"),
    option("--jobs", type=count, default=1, help="concurrent runs, each on its own GPU"),
    FORMAT,
    *PLACES,
)
def print_plan(given: argparse.Namespace) -> None:
    """Estimate the time of the runs that are left, on this machine.

    Times a few steps of every network on random images; reads no data.
    """
    from spinal_repro.paper.timebox import Timings, estimate
    from spinal_repro.records.provenance import describe_environment
    from spinal_repro.training.device import resolve_device

    cells = load_cells(given.pattern)
    done = finished(cells, [given.runs, given.records])
    rows, refused = [], []
    timings: Timings = {}
    regression = f"spinal regression --seeds {given.seeds}, and again with --layers reused"
    for cell in cells:
        if (why := cell.refusal()) is not None:
            refused.append(regression if cell.regression else why)
            continue
        protocol = str(given.protocol or cell.protocol)
        left = max(0, given.seeds - done[cell.name][protocol])
        assert cell.config is not None
        row = {"cell": cell.name, "left": left, "epochs": cell.config["recipe"]["epochs"]}
        if left:
            print(f"timing {cell.name}", file=sys.stderr)
            config = compose([f"paper={cell.name}", f"protocol={protocol}"])
            step, seconds = estimate(config, timings)
            row |= {"step": 1000 * step, "seconds": left * seconds}
        rows.append(row)
    if rows:
        print(render(PLAN_COLUMNS, rows, given.format))
    left, total = (sum(row.get(key, 0) for row in rows) for key in ("left", "seconds"))
    longest = max((row["seconds"] / row["left"] for row in rows if row["left"]), default=0)
    device = describe_environment(resolve_device("auto"))["device_name"]
    print(f"{left} runs left, about {_hours(total)} hours on {device}", file=sys.stderr)
    if given.jobs > 1:
        hours = _hours(max(total / given.jobs, longest))
        print(f"{given.jobs} at a time, each with a device: about {hours} hours", file=sys.stderr)
    for why in dict.fromkeys(refused):
        print(f"not planned: {why}", file=sys.stderr)


TARGET = "noise for each sample (default), or the committed N x N target (Q1)"
LAYERS = "six distinct Spinal layers (default), or layers 3 and 4 used twice (Q2)"
JOBS = "processes, of one thread each (default: one a core, %(default)s)"


@command(
    "regression",
    option("--seeds", type=count, default=20, help="number (default: 20)"),
    option("--epochs", type=count, default=200, help="default: 200, as published"),
    option("--target", choices=("column", "square"), default="column", help=TARGET),
    option("--layers", choices=("distinct", "reused"), default="distinct", help=LAYERS),
    option("--jobs", type=count, default=usable_cores, help=JOBS),
    option("--out", type=new_file, help="also write every seed's numbers as JSON"),
    FORMAT,
)
def print_regression(given: argparse.Namespace) -> None:
    """Train the toy regressions of Table I, and print them beside the published ones."""
    from spinal_repro.paper.regression import regression_record, regressions
    from spinal_repro.records.record import write_record
    from spinal_repro.results.regression import COLUMNS, summarise

    start = time.perf_counter()
    settings = {key: getattr(given, key) for key in ("epochs", "target", "layers")}
    rows = regressions(range(given.seeds), jobs=given.jobs, **settings)
    summary = summarise(rows)
    print(render(COLUMNS, summary, given.format), flush=True)
    if given.out is not None:
        seconds = round(time.perf_counter() - start, 1)
        record = regression_record({"seeds": given.seeds} | settings, rows, summary, seconds)
        write_record(given.out, record)


INIT = "initial weights: PyTorch's (default), or He's normal ones without biases"


@command(
    "gradients",
    option("--dataset", default="mnist", help="default: mnist"),
    option("--seeds", type=count, default=6, help="number (default: 6)"),
    option("--depths", type=count, nargs="+", default=[4, 8, 16, 30], help="default: 4 8 16 30"),
    option("--init", choices=("default", "he"), default="default", help=INIT),
    option("--out", type=new_file, help="also write every layer's norms as JSON"),
)
def print_gradients(given: argparse.Namespace) -> None:
    """Measure how much gradient reaches the first layer of FC and Spinal stacks."""
    import torch

    from spinal_repro.cli.overrides import check_overrides
    from spinal_repro.paper.gradients import gradients
    from spinal_repro.records.record import write_record
    from spinal_repro.results.rules.epochs import by_depth

    check_overrides([f"dataset={given.dataset}"])
    torch.set_num_threads(1)  # the layers are small
    record = gradients(given.dataset, given.seeds, given.depths, given.init)
    print("\n".join(part.evidence for part in by_depth(record)), flush=True)
    if given.out is not None:
        write_record(given.out, record)
