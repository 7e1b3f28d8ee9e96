"""``spinal``: all commands except training."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spinal_repro import __version__
from spinal_repro.cli.commands import FORMAT, add_commands, command, option, runs_folder
from spinal_repro.errors import EXIT_INTERRUPTED, UserError, error_message
from spinal_repro.io import echo, ignore_broken_pipe, printable
from spinal_repro.results.tables import Column, render

MODULES = (
    *("data", "paper", "paper_run", "params", "regression"),
    *("results", "records", "use", "search"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exit with 2 and one message if it fails, with 75 after Ctrl-C."""
    given = _parser().parse_args(arguments)
    try:
        given.command(given)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has ended
        ignore_broken_pipe()
        sys.exit(141)  # 128 and the number of SIGPIPE
    except KeyboardInterrupt:
        echo("spinal: interrupted; run the same command again", error=True)
        sys.exit(EXIT_INTERRUPTED)
    except (UserError, OSError, MemoryError) as error:
        echo(f"spinal: {printable(error_message(error), keep=chr(10))}", error=True)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    for module in MODULES:
        importlib.import_module(f"spinal_repro.cli.{module}")
    parser = argparse.ArgumentParser(
        prog="spinal", description="SpinalNet reproduction: data, results, tools."
    )
    parser.add_argument("--version", action="version", version=__version__)
    add_commands(parser)
    return parser


RUNS_HELP = "folder of run folders (default: SPINAL_RUNS, or ./runs)"


@command(
    "status", option("runs", nargs="?", type=Path, default=runs_folder, help=RUNS_HELP), FORMAT
)
def print_status(given: argparse.Namespace) -> None:
    """List the runs here: state, epochs and test accuracy."""
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
