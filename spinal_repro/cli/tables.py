"""``spinal tables``: every table of the results, from records and cells alone."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinal_repro.errors import UserError
from spinal_repro.results.tables import FORMATS

if TYPE_CHECKING:
    from spinal_repro.records.record import Record
    from spinal_repro.results.findings import ResultsIndex

RESULTS, RECORDS = Path("results"), Path("results/records")
COUNTS = Path("results/counts.json")


def add_parser(commands: Any) -> None:
    """Add the command."""
    tables = commands.add_parser(
        "tables",
        help="write all tables of the results, from records",
        description="Writes OUT/README.md and OUT/tables/ from the committed records, and the "
        "tables between <!-- table: CELLS --> and <!-- end --> in the README.md beside OUT. "
        "The same records always give the same bytes.",
    )
    add_inputs(tables)
    tables.add_argument(
        "--runs",
        nargs="?",
        type=Path,
        const=Path(os.environ.get("SPINAL_RUNS", "runs")),
        metavar="DIR",
        help="also the runs of this machine (SPINAL_RUNS, or ./runs); needs an --out of its own, "
        "as the committed tables show committed records alone",
    )
    tables.add_argument(
        "--out", type=Path, default=RESULTS, help=f"folder to write to (default: {RESULTS})"
    )
    tables.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit 1 unless the files are what the records give",
    )
    tables.set_defaults(command=run)


def add_format(command: argparse.ArgumentParser, *more: str) -> None:
    """Add the option that names the format of a printed table."""
    command.add_argument(
        "--format", choices=(*FORMATS, *more), default="table", help="default: table"
    )


def add_inputs(command: argparse.ArgumentParser) -> None:
    """Add the options that name records and counts."""
    command.add_argument(
        "--records",
        type=Path,
        nargs="+",
        default=[RECORDS],
        metavar="DIR",
        help=f"folders of records or runs (default: {RECORDS})",
    )
    command.add_argument(
        "--counts",
        type=Path,
        default=COUNTS,
        metavar="FILE",
        help=f"sizes of the cells' models, of spinal params --cells (default: {COUNTS})",
    )


def read_index(folders: Sequence[Path], counts: Path) -> "tuple[ResultsIndex, list[Record]]":
    """Index the records of some folders, and return the records that name no cell, too."""
    from spinal_repro.records.store import read_records
    from spinal_repro.results.cells import own_runs
    from spinal_repro.results.findings import build_index

    records = read_records(folders)
    if not counts.is_file():
        print(f"no {counts}: only cells with records have sizes", file=sys.stderr)
    index = build_index(records, counts)
    return index, own_runs(list(index.cells.values()), records)


def run(given: argparse.Namespace) -> None:
    """Write the files, or check them."""
    if given.runs is not None and given.out.resolve() == RESULTS.resolve():
        raise UserError(
            f"{RESULTS} shows committed records alone; write the tables of your runs to another "
            f"folder (--out my), or add the runs to the records with 'spinal records add'"
        )
    wanted = build(given)
    stale = [path for path in _generated(given.out / "tables") if path not in wanted]
    changed = [path for path, text in wanted.items() if _read(path) != text.encode()]
    if given.check:
        if changed or stale:
            print(
                f"spinal: not what the records give: {', '.join(map(str, [*changed, *stale]))}; "
                f"rewrite them: the same command without --check",
                file=sys.stderr,
            )
            sys.exit(1)
        print(f"{len(wanted)} files are what the records give")
        return
    from spinal_repro.io import write_atomic

    try:
        (given.out / "tables").mkdir(parents=True, exist_ok=True)
        for path in changed:
            write_atomic(path, wanted[path])
        for path in stale:
            path.unlink()
    except OSError as error:
        raise UserError(f"the tables cannot be written: {error}") from error
    print(f"{given.out / 'README.md'} and {len(wanted) - 1} other files")


def build(given: argparse.Namespace) -> dict[Path, str]:
    """Make every file: those below ``out``, and the README.md beside it."""
    from spinal_repro.results.pages import MARKER, files, fill

    folders = [*given.records, *([] if given.runs is None else [given.runs])]
    if given.runs is not None and given.records == [RECORDS] and not RECORDS.is_dir():
        folders = [given.runs]  # outside a checkout there are no committed records
    index, own = read_index(folders, given.counts)
    wanted = {given.out / name: text for name, text in files(index, own).items()}
    front = given.out.parent / "README.md"
    if given.runs is None and front.is_file():
        text = front.read_text(encoding="utf-8")
        if MARKER.search(text):
            wanted[front] = fill(text, index)
    return wanted


def _generated(folder: Path) -> list[Path]:
    """The tables in a folder that this command wrote, in every format."""
    from spinal_repro.results.pages import GENERATED, KINDS

    pages = [p for p in sorted(folder.glob("*.md")) if GENERATED in p.read_text(encoding="utf-8")]
    found = [page.with_suffix(f".{suffix}") for page in pages for suffix in KINDS]
    return [path for path in found if path.is_file()]


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
