"""``spinal``: everything besides training."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spinal_repro import __version__
from spinal_repro.cli.data import add_parser as add_data
from spinal_repro.cli.use import add_parser as add_use
from spinal_repro.errors import UserError, error_message
from spinal_repro.io import ignore_broken_pipe, printable
from spinal_repro.results.tables import FORMATS, Column, render
from spinal_repro.sweep.slots import usable_cores

LINE_FEED = "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exits 0 when it did what was asked."""
    given = _parser().parse_args(arguments)
    try:
        given.command(given)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough
        ignore_broken_pipe()
        sys.exit(141)  # 128 and the number of SIGPIPE
    except (UserError, OSError, MemoryError) as error:
        print(f"spinal: {printable(error_message(error), keep=LINE_FEED)}", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spinal", description="Results of SpinalNet reproductions (train with spinal-train)."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    status = commands.add_parser("status", help="a table of the runs here")
    status.add_argument(
        "runs",
        nargs="?",
        type=Path,
        default=Path(os.environ.get("SPINAL_RUNS", "runs")),
        help="folder of run folders (default: SPINAL_RUNS, or ./runs)",
    )
    status.set_defaults(command=lambda given: print_status(given.runs))

    params = commands.add_parser(
        "params",
        help="parameters, multiplications and activations, without training or data",
        epilog="What is not named is listed in full: without arguments every model with every "
        "head. Every row is compared with head=fc on the same model and data set.",
    )
    params.add_argument(
        "overrides",
        nargs="*",
        help="a composition, as for spinal-train, e.g. dataset=mnist model=cnn head=spinal",
    )
    params.add_argument(
        "--cells", action="store_true", help="count every published cell instead, as JSON"
    )
    params.add_argument(
        "--out", type=Path, help="with --cells: where to write it (spinal tables reads "
        "results/counts.json); else it is printed",
    )  # fmt: skip
    params.set_defaults(command=_params)

    regression = commands.add_parser("regression", help="Table I of the paper: toy regression")
    regression.add_argument("--seeds", type=_count, default=20, help="how many (default: 20)")
    regression.add_argument("--epochs", type=_count, default=200, help="default: 200, as published")
    regression.add_argument(
        "--target",
        choices=("column", "square"),
        default="column",
        help="noise of each sample's own (default), or the committed N x N target (Q1)",
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
    regression.set_defaults(command=print_regression)

    from spinal_repro.cli import export, paper, records, report, search, tables

    report.add_parser(commands)
    tables.add_parser(commands)
    records.add_parser(commands)
    paper.add_parser(commands)
    export.add_parser(commands)
    search.add_parser(commands)
    add_data(commands)
    add_use(commands)
    for command in (params, regression):
        command.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    return parser


def _params(given: argparse.Namespace) -> None:
    if given.cells and given.overrides:
        raise UserError("--cells counts every cell; leave out --cells or the overrides")
    if given.out is not None and not given.cells:
        raise UserError("--out is for the counts of the cells: spinal params --cells --out FILE")
    if given.cells:
        print_cell_counts(given.out)
    else:
        print_params(given.overrides, given.format)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def print_status(runs: Path) -> None:
    """Print one row a run below ``runs``.

    Raises:
        UserError: where there is no such folder.
    """
    from spinal_repro.records.store import describe, run_folders

    if not runs.is_dir():
        raise UserError(f"there is no folder {runs}; train something first, e.g. spinal-train")
    rows = [_plain(describe(folder)) for folder in run_folders(runs)]
    if not rows:
        print(f"no runs in {runs}")
        return
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = [Column(key, key, form=_short) for key in keys]
    print(render(columns, rows, "table"))


def _short(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose text obeys nobody: names of folders and notes of runs may hold anything."""
    return {k: printable(v) if isinstance(v, str) else v for k, v in row.items()}


def print_params(overrides: Sequence[str], style: str) -> None:
    """Print the sizes of compositions.

    Raises:
        UserError: for names and keys that do not exist.
    """
    from spinal_repro.cli.params import COLUMNS, sizes

    found = sizes(overrides)
    print(render(COLUMNS, found.rows, style))
    by_head: dict[str, list[tuple[str, str]]] = {}
    for model, head, why in found.refused:
        by_head.setdefault(head, []).append((model, why))
    for head, models in by_head.items():  # on stderr, so that the table stays one
        names = ", ".join(model for model, _ in models)
        print(f"not counted, {head} with {names}: {models[0][1]}", file=sys.stderr)


def print_cell_counts(out: Path | None) -> None:
    """Count the model of every published cell and write or print it as JSON.

    Raises:
        UserError: where the file cannot be written.
    """
    import json

    from spinal_repro.cli.params import cell_counts
    from spinal_repro.io import write_json
    from spinal_repro.paper.cells import load_cells

    if out is not None and not out.resolve().parent.is_dir():
        raise UserError(f"there is no folder {out.resolve().parent} for --out")
    counts, refused = cell_counts(load_cells())
    for name, why in refused.items():
        print(f"not counted, {name}: {why}", file=sys.stderr)
    if out is None:
        print(json.dumps(counts, indent=1))
    else:
        write_json(out, counts)


def print_regression(given: argparse.Namespace) -> None:
    """Train all regression nets and print their table beside the published one.

    Raises:
        UserError: where the output file cannot be written.
    """
    if given.out is not None and not given.out.resolve().parent.is_dir():
        raise UserError(f"there is no folder {given.out.resolve().parent} for --out")
    from spinal_repro.paper.regression import regression_record
    from spinal_repro.records.record import write_record
    from spinal_repro.results.regression import COLUMNS, published, summarise

    start = time.perf_counter()
    rows = _regressions(given)
    summary = summarise(rows, published())
    print(render(COLUMNS, summary, given.format), flush=True)
    if given.out is not None:
        settings = {key: getattr(given, key) for key in ("seeds", "epochs", "target", "layers")}
        seconds = round(time.perf_counter() - start, 1)
        write_record(given.out, regression_record(settings, rows, summary, seconds))


def _regressions(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Train both nets with every seed, with a bar where there is a terminal."""
    from tqdm import tqdm

    from spinal_repro.paper.regression import NETS, regressions

    with tqdm(total=given.seeds * len(NETS), unit="net", disable=None) as bar:
        return regressions(
            range(given.seeds),
            jobs=given.jobs,
            epochs=given.epochs,
            target=given.target,
            layers=given.layers,
            on_part=bar.update,
        )
