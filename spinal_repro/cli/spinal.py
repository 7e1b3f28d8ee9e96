"""``spinal``: everything besides training."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spinal_repro import __version__
from spinal_repro.errors import UserError, error_message
from spinal_repro.io import ignore_broken_pipe, printable
from spinal_repro.results.tables import Column, render


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exit with 2 and one message where it fails."""
    given = _parser().parse_args(arguments)
    try:
        given.command(given)
        sys.stdout.flush()
    except BrokenPipeError:  # whatever reads the output has ended
        ignore_broken_pipe()
        sys.exit(141)  # 128 and the number of SIGPIPE
    except (UserError, OSError, MemoryError) as error:
        print(f"spinal: {printable(error_message(error), keep=chr(10))}", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    from spinal_repro.cli import (
        data,
        export,
        paper,
        params,
        records,
        regression,
        report,
        search,
        tables,
        use,
    )

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
    tables.add_format(status)
    status.set_defaults(command=print_status)
    modules = (params, regression, report, tables, records, paper, export, search, data, use)
    for module in modules:
        module.add_parser(commands)
    return parser


def print_status(given: argparse.Namespace) -> None:
    """Print one row for each run below a folder."""
    from spinal_repro.records.store import describe, run_folders

    if not given.runs.is_dir():
        raise UserError(f"there is no folder {given.runs}; to train something: spinal-train")
    rows = [describe(folder) for folder in run_folders(given.runs)]
    if not rows:
        print(f"no runs in {given.runs}")
        return
    keys = dict.fromkeys(key for row in rows for key in row)
    print(render([Column(key, key, form=_short) for key in keys], rows, given.format))


def _short(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
