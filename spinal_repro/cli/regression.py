"""``spinal regression`` and ``spinal gradients``: experiments of many small nets."""

import argparse
import time

from spinal_repro.cli.commands import FORMAT, command, count, new_file, option
from spinal_repro.sweep.runner import usable_cores

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
    from spinal_repro.results.tables import render

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
    from spinal_repro.results.rules.gradients import by_depth

    check_overrides([f"dataset={given.dataset}"])
    torch.set_num_threads(1)  # the layers are small
    record = gradients(given.dataset, given.seeds, given.depths, given.init)
    print("\n".join(part.evidence for part in by_depth(record)), flush=True)
    if given.out is not None:
        write_record(given.out, record)
