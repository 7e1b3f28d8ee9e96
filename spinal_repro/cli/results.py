"""``spinal tables``, ``report``, ``claims``: results, from records and cells; ``records add``."""

import argparse
import gc
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from spinal_repro.cli.spinal import FORMAT, RECORDS, command, new_file, option, runs_folder
from spinal_repro.errors import UserError
from spinal_repro.io import write_atomic
from spinal_repro.paper.cells import Cell, load_cells
from spinal_repro.records.record import (
    AnyRecord,
    GradientRecord,
    Record,
    RegressionRecord,
    load_record,
    write_record,
)
from spinal_repro.records.store import RECORD, read_records
from spinal_repro.results.tables import render

if TYPE_CHECKING:
    from spinal_repro.results.findings import ResultsIndex

RESULTS = Path("results")
INPUTS = (
    option("--records", type=Path, nargs="+", default=[RECORDS], metavar="DIR",
           help=f"folders of records or runs (default: {RECORDS})"),
    option("--counts", type=Path, default=RESULTS / "counts.json", metavar="FILE",
           help="sizes of the cells' models, from spinal params --cells (default: %(default)s)"),
)  # fmt: skip
WITH_RUNS = "also the runs here (default: SPINAL_RUNS, or ./runs); needs an --out of its own"
CHECK = "write nothing; exit with 1 unless the files are what the records give"
PAGE = "the page (default: %(default)s); its figures also go into figures/ beside it"


def _read_index(given: argparse.Namespace, *more: Path) -> "ResultsIndex":
    from spinal_repro.results.findings import build_index

    folders = [*given.records, *more]
    if more and given.records == [RECORDS] and not RECORDS.is_dir():
        folders = list(more)  # outside a checkout there are no committed records
    gc.set_threshold(100_000, 20, 100)  # else a fifth of the time with thousands of records
    records = read_records(folders)
    if not given.counts.is_file():
        print(f"no {given.counts}: only cells with records have sizes", file=sys.stderr)
    return build_index(records, given.counts)


@command(
    "tables",
    *INPUTS,
    option("--runs", nargs="?", type=Path, const=runs_folder, metavar="DIR", help=WITH_RUNS),
    option("--out", type=Path, default=RESULTS, help="folder to write to (default: %(default)s)"),
    option("--check", action="store_true", help=CHECK),
)
def write_tables(given: argparse.Namespace) -> None:
    """Write all tables of the results, from records.

    Writes OUT/README.md and OUT/tables/, and the tables between <!-- table: CELLS --> and
    <!-- end --> in the README.md beside OUT. The same records always give the same bytes.
    """
    if given.runs is not None and given.out.resolve() == RESULTS.resolve():
        fix = "write your tables to another folder (--out my), or first: spinal records add"
        raise UserError(f"{RESULTS} shows only committed records; {fix}")
    from spinal_repro.results.pages import GENERATED, KINDS, MARKER, files, fill

    index = _read_index(given, *([] if given.runs is None else [given.runs]))
    wanted = {given.out / name: text for name, text in files(index).items()}
    front = given.out.parent / "README.md"
    if given.runs is None and front.is_file() and MARKER.search(text := front.read_text("utf-8")):
        wanted[front] = fill(text, index)
    old = {path: path.read_bytes() for path in wanted if path.is_file()}
    changed = [path for path, text in wanted.items() if old.get(path) != text.encode()]
    pages = [p for p in (given.out / "tables").glob("*.md") if GENERATED in p.read_text("utf-8")]
    made = sorted(page.with_suffix(f".{suffix}") for page in pages for suffix in KINDS)
    stale = [path for path in made if path.is_file() and path not in wanted]
    if given.check:
        if changed or stale:
            paths = ", ".join(map(str, [*changed, *stale]))
            fix = "rewrite them: the same command without --check"
            print(f"spinal: not what the records give: {paths}; {fix}", file=sys.stderr)
            sys.exit(1)
        print(f"{len(wanted)} files are up to date")
        return
    (given.out / "tables").mkdir(parents=True, exist_ok=True)
    for path in changed:
        write_atomic(path, wanted[path])
    for path in stale:
        path.unlink()
    print(f"{given.out / 'README.md'} and {len(wanted) - 1} other files")


@command(
    "report", option("--out", type=new_file, default=f"{RESULTS}/index.html", help=PAGE), *INPUTS
)
def write_report(given: argparse.Namespace) -> None:
    """Write claims, tables and figures as one HTML file, from the records alone."""
    from spinal_repro.results import figures
    from spinal_repro.results.report import render as render_page

    out: Path = given.out
    index = _read_index(given)
    drawn = list(figures.draw(index))
    page = render_page(index, drawn)
    figures.write(drawn, out.parent / "figures")
    write_atomic(out, page)
    print(f"{out}: {len(index.claims)} claims, {len(index.cells)} cells, {len(drawn)} figures")


@command("claims", FORMAT, *INPUTS)
def print_claims(given: argparse.Namespace) -> None:
    """List the paper's claims, each with its verdict."""
    from spinal_repro.results.claims import COLUMNS, judge, rows

    print(render(COLUMNS, rows(judge(_read_index(given))), given.format))


FILES = "records, or folders of finished runs"


@command(
    "records add",
    option("files", nargs="+", type=Path, metavar="FILE", help=FILES),
    option("--out", type=Path, default=RECORDS, help=f"folder to copy to (default: {RECORDS})"),
)
def add_records(given: argparse.Namespace) -> None:
    """Check records and copy them into results/records/.

    Skips runs that are there already or name no published cell. Checks every other record against
    its configuration, its history and its model, and prints its differences from the published
    cell. If one of these is refused, or all were skipped, nothing is copied and the exit code is 2.
    """
    from spinal_repro.results.cells import cell_of

    out: Path = given.out
    known = read_records([out], history=False) if out.is_dir() else []
    cells = {cell.name: cell for cell in load_cells()}
    accepted: dict[Path, AnyRecord] = {}
    refused: list[str] = []
    for path in given.files:
        path = path / RECORD if path.is_dir() else path
        record = load_record(path)
        cell = cell_of(record, cells) if isinstance(record, Record) else None
        if isinstance(record, Record) and cell is None:
            why = "it names no published cell; train one with spinal-train paper=CELL"
            print(f"skipped {path}: {why}", file=sys.stderr)
            continue
        target = out / _file_name(record, cell)
        if target.exists() or target in accepted:
            print(f"skipped {path}: the records already have this run", file=sys.stderr)
        elif wrong := _inconsistencies(record):
            refused.append(f"{path}: {'; '.join(wrong)}")
        else:
            if isinstance(record, Record) and cell is not None:
                for note in _notes(record, cell, (*known, *accepted.values())):
                    print(f"{path}: {note}")
            accepted[target] = record
    if refused:
        raise UserError("nothing was added; refused: " + "; ".join(refused))
    if not accepted:
        raise UserError("nothing was added: every file was skipped")
    for target, record in accepted.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_record(target, record)
        print(f"added {target}")
    print("now update the tables: spinal tables")


def _file_name(record: AnyRecord, cell: Cell | None) -> str:
    if isinstance(record, GradientRecord):
        return f"gradients/{record.dataset}-{record.init}-s{record.seeds}.json"
    if isinstance(record, RegressionRecord):
        s = record.settings
        return f"regression/{s.target}-{s.layers}-{s.epochs}-s{s.seeds}.json"
    assert cell is not None
    leaf = cell.name.rpartition("/")[2]
    return f"{cell.table}/{leaf}-{record.protocol}-{record.identity}-s{record.seed}.json"


def _inconsistencies(record: AnyRecord) -> list[str]:
    from spinal_repro.paper.sizes import count_model
    from spinal_repro.records.check import check_record, check_regression

    if isinstance(record, Record):
        return check_record(record, count_model)
    return check_regression(record) if isinstance(record, RegressionRecord) else []


def _notes(record: Record, cell: Cell, others: Iterable[AnyRecord]) -> Iterator[str]:
    """Say what a reader of the results should know about a run."""
    from spinal_repro.records.compare import differences

    assert cell.config is not None
    for difference in differences(record.config, cell.config):
        yield f"differs from {cell.name}: {difference}"
    commit, modified = record.git.get("commit"), record.git.get("modified")
    if modified is not False:
        yield f"made with uncommitted changes to {commit}" if modified else "its commit is unknown"
    name = record.config["dataset"]["name"]
    runs = [r for r in others if isinstance(r, Record) and r.config["dataset"]["name"] == name]
    for part in ("train_hash", "test_hash"):
        if any(run.data.get(part) != record.data.get(part) for run in runs):
            yield f"read other images than earlier records of {name} (data.{part})"
