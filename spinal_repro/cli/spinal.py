"""``spinal``: everything besides training."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from spinal_repro import __version__
from spinal_repro.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exits 0 when it did what was asked."""
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
    given = parser.parse_args(arguments)
    try:
        given.command(given)
    except UserError as error:
        print(f"spinal: {error}", file=sys.stderr)
        sys.exit(2)


def print_status(runs: Path) -> None:
    """Print one row a run below ``runs``.

    Raises:
        UserError: where there is no such folder.
    """
    from spinal_repro.records import describe, run_folders

    if not runs.is_dir():
        raise UserError(f"there is no folder {runs}; train something first, e.g. spinal-train")
    rows = [describe(folder) for folder in run_folders(runs)]
    if not rows:
        print(f"no runs in {runs}")
        return
    import pandas as pd

    table = pd.DataFrame(rows, dtype=object)  # whole numbers stay whole beside empty cells
    print(table.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.2f}"))
