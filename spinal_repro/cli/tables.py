"""``spinal tables``: every table of the results, from records and cells alone."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from spinal_repro.errors import UserError

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
    tables.add_argument(
        "--records",
        nargs="+",
        type=Path,
        default=[RECORDS],
        metavar="DIR",
        help=f"folders of records (default: {RECORDS})",
    )
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
        "--counts",
        type=Path,
        default=COUNTS,
        metavar="FILE",
        help=f"sizes of the cells' models, of spinal params --cells (default: {COUNTS})",
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


def run(given: argparse.Namespace) -> None:
    """Write or check.

    Raises:
        UserError: for folders that are not there or cannot be written, and for broken records.
    """
    if given.runs is not None and given.out.resolve() == RESULTS.resolve():
        raise UserError(
            f"{RESULTS} shows committed records alone; give the tables of your runs a place of "
            f"their own (--out my), or take the runs over with 'spinal records add'"
        )
    wanted = build(given)
    stale = [path for path in _generated(given.out / "tables") if path not in wanted]
    if given.check:
        wrong = [path for path, text in wanted.items() if _read(path) != text.encode()]
        if wrong or stale:
            print(
                f"spinal: not what the records give: {', '.join(map(str, [*wrong, *stale]))}; "
                f"rewrite them with '{_command(given)}'",
                file=sys.stderr,
            )
            sys.exit(1)
        print(f"{len(wanted)} files are what the records give")
        return
    from spinal_repro.io import write_atomic

    try:
        (given.out / "tables").mkdir(parents=True, exist_ok=True)
        for path, text in wanted.items():
            if _read(path) != text.encode():
                write_atomic(path, text)
        for path in stale:
            path.unlink()
    except OSError as error:
        raise UserError(f"the tables cannot be written: {error}") from error
    print(f"{given.out / 'README.md'} and {len(wanted) - 1} other files")


def build(given: argparse.Namespace) -> dict[Path, str]:
    """Every generated file by its path: below ``out``, and the README.md beside it.

    Raises:
        UserError: as `run`.
    """
    from spinal_repro.paper.cells import load_cells, table_titles
    from spinal_repro.records.store import read_records
    from spinal_repro.results.cells import group_records_by_cell, own_runs
    from spinal_repro.results.pages import MARKER, files, fill

    folders = [*given.records, *([] if given.runs is None else [given.runs])]
    if given.runs is not None and given.records == [RECORDS] and not RECORDS.is_dir():
        folders = [given.runs]  # outside a checkout there are no committed records
    cells, records = load_cells(), read_records(folders)
    results = group_records_by_cell(cells, records)
    counted = _counted(given.counts)
    made = files(results, counted, table_titles(), own_runs(cells, records))
    wanted = {given.out / name: text for name, text in made.items()}
    front = given.out.parent / "README.md"
    if given.runs is None and front.is_file():
        text = front.read_text(encoding="utf-8")
        if MARKER.search(text):
            wanted[front] = fill(text, results, counted)
    return wanted


def _counted(path: Path) -> dict[str, dict[str, int]]:
    from spinal_repro.results.findings import read_counts

    if not path.is_file():
        print(f"no {path}: sizes of the cells that were run alone", file=sys.stderr)
        return {}
    return read_counts(path)


def _generated(folder: Path) -> list[Path]:
    """The tables in a folder that this command wrote, in every format."""
    from spinal_repro.results.pages import GENERATED, STYLES

    found = []
    for page in sorted(folder.glob("*.md")):
        if GENERATED in page.read_text(encoding="utf-8"):
            found += [page.with_suffix(f".{suffix}") for suffix in STYLES]
    return [path for path in found if path.is_file()]


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _command(given: argparse.Namespace) -> str:
    """The command that writes what this one checks."""
    parts = ["spinal tables"]
    if given.records != [RECORDS]:
        parts.append(f"--records {' '.join(map(str, given.records))}")
    if given.runs is not None:
        parts.append(f"--runs {given.runs}")
    if given.counts != COUNTS:
        parts.append(f"--counts {given.counts}")
    if given.out != RESULTS:
        parts.append(f"--out {given.out}")
    return " ".join(parts)
