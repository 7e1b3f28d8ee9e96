"""``spinal paper``: the published cells, what has been run of them, and what is left."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spinal_repro.cli import paper_run
from spinal_repro.cli.tables import add_format
from spinal_repro.errors import UserError
from spinal_repro.paper.cells import Cell, load_cells
from spinal_repro.results.tables import Column, render

RECORDS = Path("results/records")
PROTOCOLS = ("paper", "heldout")


def add_parser(commands: Any) -> None:
    """Add the command with its own commands ``list``, ``plan`` and ``run``."""
    paper = commands.add_parser("paper", help="the published cells: list, plan and run them")
    actions = paper.add_subparsers(required=True, metavar="COMMAND")
    listing = actions.add_parser("list", help="every cell with its number and its state")
    listing.add_argument("pattern", nargs="?", default="*", help="e.g. mnist, 'mnist/*vgg5*'")
    listing.set_defaults(command=print_list)
    plan = actions.add_parser(
        "plan",
        help="what is left to run, and how long it takes on this machine",
        description="Times a few steps of every network on random images; reads no data.",
    )
    plan.add_argument("pattern", metavar="TABLE", help="a table, or a pattern of cells")
    plan.add_argument("--seeds", type=_count, default=1, help="runs of each cell (default: 1)")
    plan.add_argument("--protocol", choices=PROTOCOLS, help="default: that of each cell")
    plan.add_argument("--jobs", type=_count, default=1, help="runs at a time, each on its own GPU")
    plan.set_defaults(command=print_plan)
    paper_run.add_parser(actions)
    for command in (listing, plan):
        add_format(command)
        command.add_argument(
            "--runs",
            type=Path,
            help="folder of run folders (default: SPINAL_RUNS, or ./runs)",
        )
        command.add_argument("--records", type=Path, help=f"committed records (default: {RECORDS})")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def _number(value: float) -> str:
    return f"{value:.2f}" if round(value, 2) == value else f"{value:g}"


LIST_COLUMNS = (
    Column("cell", "Cell", "what spinal-train paper= takes"),
    Column(
        "published", "Published", "accuracy in percent; of the regression, MSE in 1e-3", _number
    ),
    Column("confidence", "Confidence", "of the published number"),
    Column("epochs", "Epochs", "as published"),
    Column("state", "State", "finished runs as the cell says, by protocol; or why there are none"),
)


def print_list(given: argparse.Namespace) -> None:
    """Print one row a cell.

    Raises:
        UserError: where no cell matches the pattern, and for broken records.
    """
    cells = load_cells(given.pattern)
    done = finished(cells, _folders(given))
    rows = []
    for cell in cells:
        first = cell.published[0] if cell.published else None
        rows.append(
            {
                "cell": cell.name,
                "published": None if first is None else first.value,
                "confidence": None if first is None else first.confidence,
                "epochs": None if first is None else first.epochs,
                "state": state(cell, done[cell.name]),
            }
        )
    print(render(LIST_COLUMNS, rows, given.format))


def _folders(given: argparse.Namespace) -> list[Path]:
    """Where runs and records lie; their usual places need not be there, others must.

    Raises:
        UserError: where a folder that was named is not there.
    """
    for option, folder in (("--runs", given.runs), ("--records", given.records)):
        if folder is not None and not folder.is_dir():
            raise UserError(f"there is no folder {folder} for {option}")
    runs = given.runs or Path(os.environ.get("SPINAL_RUNS", "runs"))
    return [folder for folder in (runs, given.records or RECORDS) if folder.is_dir()]


def finished(cells: Sequence[Cell], folders: Sequence[Path]) -> dict[str, Counter[str]]:
    """Seeds finished as each cell says, by its name and by protocol."""
    from spinal_repro.records.store import read_records
    from spinal_repro.results.cells import group_records_by_cell

    found: dict[str, Counter[str]] = {cell.name: Counter() for cell in cells}
    records = read_records(folders, history=False)
    for result in group_records_by_cell(cells, records) if records else ():
        if result.cell.best_of:
            continue
        seeds = {run.seed for run in result.runs if not run.differences}
        counted = found[result.cell.name]
        counted[result.protocol] = max(counted[result.protocol], len(seeds))
    return found


def state(cell: Cell, done: Counter[str]) -> str:
    """What has become of a cell, in words."""
    if cell.not_runnable:
        return f"not runnable: {cell.not_runnable}"
    if cell.best_of:
        return f"the best of {len(cell.best_of)} cells"
    ran = [f"{done[protocol]} ({protocol})" for protocol in sorted(done, reverse=True)]
    counts = [text for text in ran if not text.startswith("0 ")]
    return f"run {', '.join(counts)}" if counts else "not run"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f}"


PLAN_COLUMNS = (
    Column("cell", "Cell"),
    Column("left", "Left", "runs still to do"),
    Column("epochs", "Epochs", "of one run"),
    Column("step", "ms/step", "one training step, measured on random images", "{:.0f}".format),
    Column(
        "seconds",
        "Hours",
        "of all runs left: training steps and one pass an epoch over the images that select; "
        "reading and preparing data is not counted",
        _hours,
    ),
)


def print_plan(given: argparse.Namespace) -> None:
    """Print what is left to run with an estimate of the time that it takes.

    Raises:
        UserError: where no cell matches the pattern, and for broken records.
    """
    cells = load_cells(given.pattern)
    done = finished(cells, _folders(given))
    rows, refused = [], []
    timings: Any = {}
    for cell in cells:
        if (why := cell.refusal()) is not None:
            seeds = f"spinal regression --seeds {given.seeds} trains {cell.table}/*"
            refused.append(seeds if cell.regression else why)
            continue
        protocol = str(given.protocol or cell.protocol)
        left = max(0, given.seeds - done[cell.name][protocol])
        row = {"cell": cell.name, "left": left, "epochs": cell.published[0].epochs}
        if left:
            found = _estimate(cell, protocol, timings)
            row |= {"epochs": found.epochs, "step": found.step * 1000}
            row["seconds"] = left * found.seconds
        rows.append(row)
    total = sum(row.get("seconds", 0.0) for row in rows)
    if rows:
        print(render(PLAN_COLUMNS, rows, given.format))
    left = sum(row["left"] for row in rows)
    print(f"{left} runs left, about {_hours(total)} hours on {_device()}", file=sys.stderr)
    if given.jobs > 1 and left:
        longest = max(row["seconds"] / row["left"] for row in rows if row["left"])
        hours = _hours(max(total / given.jobs, longest))
        print(f"{given.jobs} at a time, each on one like it: about {hours} hours", file=sys.stderr)
    for why in dict.fromkeys(refused):
        print(f"not planned: {why}", file=sys.stderr)


def _device() -> str:
    """What was timed; its imports are heavy."""
    from spinal_repro.records.provenance import describe_environment
    from spinal_repro.training.device import resolve_device

    return f"this machine ({describe_environment(resolve_device('auto'))['device_name']})"


def _estimate(cell: Cell, protocol: str, timings: Any) -> Any:
    """`plan.estimate` of a cell; its imports are heavy."""
    from spinal_repro.config.compose import compose
    from spinal_repro.paper.plan import estimate

    print(f"timing {cell.name}", file=sys.stderr)
    return estimate(compose([f"paper={cell.name}", f"protocol={protocol}"]), timings)
