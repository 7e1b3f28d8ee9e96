"""``spinal records add``: check records and copy them to ``results/records/``."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from spinal_repro.cli.commands import RECORDS, command, option
from spinal_repro.errors import UserError
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
    known = _by_run(read_records([out], history=False) if out.is_dir() else ())
    cells = {cell.name: cell for cell in load_cells()}
    accepted: dict[Path, AnyRecord] = {}
    refused: list[str] = []
    for path in given.files:
        path = path / RECORD if path.is_dir() else path
        record = load_record(path)
        cell = cell_of(record, cells) if isinstance(record, Record) else None
        if isinstance(record, Record) and cell is None:
            _skip(path, "it names no published cell; train one with spinal-train paper=CELL")
            continue
        target = out / _file_name(record, cell)
        run = _by_run([record])
        if target.exists() or target in accepted or run.keys() & known:
            _skip(path, "the records already have this run")
        elif wrong := _inconsistencies(record):
            refused.append(f"{path}: {'; '.join(wrong)}")
        else:
            if isinstance(record, Record) and cell is not None:
                for note in _notes(record, cell, known.values()):
                    print(f"{path}: {note}")
            accepted[target] = record
            known |= run
    if refused:
        raise UserError("nothing was added; refused: " + "; ".join(refused))
    if not accepted:
        raise UserError("nothing was added: every file was skipped")
    for target, record in accepted.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_record(target, record)
        print(f"added {target}")
    print("now update the tables: spinal tables")


def _by_run(records: Iterable[AnyRecord]) -> dict[tuple[str, int], Record]:
    return {(r.identity, r.seed): r for r in records if isinstance(r, Record)}


def _skip(path: Path, why: str) -> None:
    print(f"skipped {path}: {why}", file=sys.stderr)


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


def _notes(record: Record, cell: Cell, others: Iterable[Record]) -> Iterator[str]:
    """Say what a reader of the results should know about a run."""
    from spinal_repro.records.compare import differences

    assert cell.config is not None
    for difference in differences(record.config, cell.config):
        yield f"differs from {cell.name}: {difference}"
    commit, modified = record.git.get("commit"), record.git.get("modified")
    if modified is not False:
        yield f"made with uncommitted changes to {commit}" if modified else "its commit is unknown"
    name = record.config["dataset"]["name"]
    same_data = [other for other in others if other.config["dataset"]["name"] == name]
    for part in ("train_hash", "test_hash"):
        if any(other.data.get(part) != record.data.get(part) for other in same_data):
            yield f"read other images than earlier records of {name} (data.{part})"
