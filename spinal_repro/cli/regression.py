"""``spinal regression``: Table I of the paper."""

import argparse
import time
from pathlib import Path
from typing import Any

from spinal_repro.cli.tables import add_format
from spinal_repro.errors import UserError
from spinal_repro.sweep.slots import usable_cores


def add_parser(commands: Any) -> None:
    """Add the command."""
    regression = commands.add_parser("regression", help="Table I of the paper: toy regression")
    regression.add_argument("--seeds", type=_count, default=20, help="how many (default: 20)")
    regression.add_argument("--epochs", type=_count, default=200, help="default: 200, as published")
    regression.add_argument(
        "--target",
        choices=("column", "square"),
        default="column",
        help="noise for each sample (default), or the committed N x N target (Q1)",
    )
    regression.add_argument(
        "--layers",
        choices=("distinct", "reused"),
        default="distinct",
        help="six distinct Spinal layers (default), or layers 3 and 4 used twice (Q2)",
    )
    regression.add_argument(
        "--jobs",
        type=_count,
        default=usable_cores(),
        help="processes, of one thread each (default: one a core, %(default)s)",
    )
    regression.add_argument("--out", type=Path, help="also write every seed's numbers as JSON")
    add_format(regression)
    regression.set_defaults(command=print_regression)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def print_regression(given: argparse.Namespace) -> None:
    """Train both nets with every seed; print their table beside the published one."""
    if given.out is not None and not given.out.resolve().parent.is_dir():
        raise UserError(f"there is no folder {given.out.resolve().parent} for --out")
    from tqdm import tqdm

    from spinal_repro.paper.regression import NETS, regression_record, regressions
    from spinal_repro.records.record import write_record
    from spinal_repro.results.regression import COLUMNS, published, summarise
    from spinal_repro.results.tables import render

    start = time.perf_counter()
    settings = {key: getattr(given, key) for key in ("epochs", "target", "layers")}
    with tqdm(total=given.seeds * len(NETS), unit="net", disable=None) as bar:
        rows = regressions(range(given.seeds), jobs=given.jobs, on_part=bar.update, **settings)
    summary = summarise(rows, published())
    print(render(COLUMNS, summary, given.format), flush=True)
    if given.out is not None:
        seconds = round(time.perf_counter() - start, 1)
        record = regression_record({"seeds": given.seeds} | settings, rows, summary, seconds)
        write_record(given.out, record)
