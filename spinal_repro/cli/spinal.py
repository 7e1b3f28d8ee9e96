"""``spinal``: all commands except training. A command is a function, its name and its options."""

import argparse
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spinal_repro import __version__
from spinal_repro.errors import EXIT_INTERRUPTED, UserError, error_message
from spinal_repro.io import echo, expand_home, ignore_broken_pipe, printable
from spinal_repro.results.tables import FORMATS, Column, render

Function = Callable[[argparse.Namespace], None]
Option = tuple[tuple[str, ...], dict[str, Any]]
COMMANDS: dict[str, tuple[Function, tuple[Option, ...]]] = {}
GROUPS = {
    "data": "data sets: list, info, fetch, import, verify, show",
    "paper": "the published cells: list, plan, run",
    "records": "records contributed to the results: add",
}
MODULES = ("compare", "data", "paper", "paper_run", "params", "results", "use", "search")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exit with 2 and one message if it fails, with 75 after Ctrl-C."""
    parser = _parser()
    given, more = parser.parse_known_args(arguments)
    if more and ("words" not in given or any(word[0] == "-" for word in more)):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if more:  # argparse takes words up to the first option alone
        given.words = [*given.words, *more]
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


def option(*names: str, **settings: Any) -> Option:
    """An argument of argparse; a function as ``default`` or ``const`` is called for its value."""
    return names, settings


def command(name: str, *options: Option) -> Callable[[Function], Function]:
    """Decorator that declares a command; the docstring of the function is its help."""

    def add(function: Function) -> Function:
        COMMANDS[name] = function, options
        return function

    return add


def _parser() -> argparse.ArgumentParser:
    """Build the parser of all declared commands; ``paper list`` is ``list`` in group ``paper``."""
    for module in MODULES:
        importlib.import_module(f"spinal_repro.cli.{module}")
    parser = argparse.ArgumentParser(
        prog="spinal", description="SpinalNet reproduction: data, results, tools."
    )
    parser.add_argument("--version", action="version", version=__version__)
    places = {"": parser.add_subparsers(required=True, metavar="COMMAND")}
    for name, text in GROUPS.items():
        group = places[""].add_parser(name, help=text, description=text)
        places[name] = group.add_subparsers(required=True, metavar="COMMAND")
    for name, (function, options) in COMMANDS.items():
        group_name, _, verb = name.rpartition(" ")
        text = inspect.cleandoc(function.__doc__ or "")
        summary = text.partition("\n")[0].rstrip(".")
        added = places[group_name].add_parser(
            verb, help=summary[0].lower() + summary[1:], description=text
        )
        added.set_defaults(command=function)
        for names, settings in options:
            for key in ("default", "const"):
                if callable(value := settings.get(key)):
                    settings = settings | {key: value()}
            if settings.get("type") is Path:  # a shell does not expand ~ in --root=~/photos
                settings = settings | {"type": path}
            added.add_argument(*names, **settings)
    return parser


def runs_folder() -> Path:
    """``SPINAL_RUNS``, or ``./runs``."""
    return path(os.environ.get("SPINAL_RUNS", "runs"))


def path(text: str) -> Path:
    """Type of an option: a path, in which ~ is expanded."""
    return Path(expand_home(text))


def count(text: str, least: int = 1) -> int:
    """Type of an option: an integer that is at least 1."""
    if (value := int(text)) < least:
        raise argparse.ArgumentTypeError(f"must be {least} or more, got {value}")
    return value


def natural(text: str) -> int:
    """Type of an option: an integer that is at least 0."""
    return count(text, least=0)


def folder(text: str) -> Path:
    """Type of an option: an existing folder."""
    if not path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return path(text)


def new_file(text: str, suffix: str = "") -> Path:
    """Type of an option: a file to write, in an existing folder."""
    if not text.lower().endswith(suffix):
        raise argparse.ArgumentTypeError(f"give a name that ends in {suffix}, not {text}")
    file = path(text)
    if not file.resolve().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{file}: there is no folder {file.resolve().parent}")
    if file.is_dir():
        raise argparse.ArgumentTypeError(f"{file} is a folder; give the name of a file")
    return file


RECORDS = Path("results/records")
FORMAT = option("--format", choices=FORMATS, default="table", help="default: table")
RUN = option("run", type=Path, help="run folder, see `spinal status`")
RUNS_HELP = "folder of run folders (default: SPINAL_RUNS, or ./runs)"


@command(
    "status",
    option("runs", nargs="?", type=Path, default=runs_folder, help=RUNS_HELP),
    option("--metrics", action="store_true", help="also the other metrics of the selected epoch"),
    FORMAT,
)
def print_status(given: argparse.Namespace) -> None:
    """List the runs here: state, epochs and test accuracy."""
    from spinal_repro.records.metrics import TITLES
    from spinal_repro.records.store import describe, run_folders

    if not given.runs.is_dir():
        raise UserError(f"there is no folder {given.runs}; to train something: spinal-train")
    if not (rows := [describe(run, given.metrics) for run in run_folders(given.runs)]):
        print(f"no runs in {given.runs}")
        return
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = [
        Column(key, TITLES.get(key, key), form="{:.4f}".format if key in TITLES else _short)
        for key in keys
    ]
    print(render(columns, rows, given.format))


def _short(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
