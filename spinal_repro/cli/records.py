"""``spinal records add``: check records and copy them to ``results/records/``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spinal_repro.cli.commands import RECORDS, command, option
from spinal_repro.errors import UserError

if TYPE_CHECKING:
    from spinal_repro.paper.cells import Cell
    from spinal_repro.records.record import AnyRecord, Record, RegressionRecord

FILES = "records, or folders of finished runs"


@command(
    "records add",
    option("files", nargs="+", type=Path, metavar="FILE", help=FILES),
    option("--out", type=Path, default=RECORDS, help=f"folder to copy to (default: {RECORDS})"),
)
def add_records(given: argparse.Namespace) -> None:
    """Check records and copy them into results/records/.

    Checks every record against its configuration, its history and its model, and prints its
    differences from the published cell. If one record is refused, none is copied.
    """
    from spinal_repro.paper.cells import load_cells
    from spinal_repro.records.record import GradientRecord, Record, load_record, write_record
    from spinal_repro.records.store import read_records
    from spinal_repro.results.cells import cell_of

    out: Path = given.out
    known = read_records([out], history=False) if out.is_dir() else []
    cells = {cell.name: cell for cell in load_cells()}
    accepted: dict[Path, AnyRecord] = {}
    refused: list[str] = []
    for path in given.files:
        path = path / "record.json" if path.is_dir() else path
        record = load_record(path)
        try:
            if isinstance(record, Record):
                others = [r for r in (*known, *accepted.values()) if isinstance(r, Record)]
                target = out / _check(record, cell_of(record, cells), others, path)
            elif isinstance(record, GradientRecord):
                target = out / f"gradients/{record.dataset}-{record.init}-s{record.seeds}.json"
            else:
                target = out / _check_regression(record)
            if target.exists() or target in accepted:
                raise UserError(f"{target} exists already")
            accepted[target] = record
        except UserError as error:
            refused.append(f"{path}: {error}")
    if refused:
        raise UserError("nothing was added; refused: " + "; ".join(refused))
    for target, record in accepted.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_record(target, record)
        print(f"added {target}")
    print("now update the tables: spinal tables")


def _check(record: "Record", cell: "Cell | None", others: Sequence["Record"], path: Path) -> str:
    """Check the record of a run, print its differences, and return its new name."""
    from spinal_repro.paper.sizes import count_model
    from spinal_repro.records.check import check_record
    from spinal_repro.records.compare import differences

    if wrong := check_record(record, count_model):
        raise UserError("; ".join(wrong))
    key = record.identity, record.seed
    if key in [(other.identity, other.seed) for other in others]:
        raise UserError(f"the records already have this run (identity {key[0]}, seed {key[1]})")
    if cell is None:
        raise UserError(
            "it names no published cell; train one with spinal-train paper=CELL "
            "(list cells with: spinal paper list)"
        )
    assert cell.config is not None
    for difference in differences(record.config, cell.config):
        print(f"{path}: differs from {cell.name}: {difference}")
    if record.git.get("modified") is not False:
        print(f"{path}: made with uncommitted changes to {record.git.get('commit')}")
    name = record.config["dataset"]["name"]
    same_data = [other for other in others if other.config["dataset"]["name"] == name]
    for part in ("train_hash", "test_hash"):
        if any(other.data.get(part) != record.data.get(part) for other in same_data):
            print(f"{path}: read other images than earlier records of {name} (data.{part})")
    leaf = cell.name.rpartition("/")[2]
    return f"{cell.table}/{leaf}-{record.protocol}-{record.identity}-s{record.seed}.json"


def _check_regression(record: "RegressionRecord") -> str:
    from spinal_repro.records.check import check_regression

    if wrong := check_regression(record):
        raise UserError("; ".join(wrong))
    s = record.settings
    return f"regression/{s.target}-{s.layers}-{s.epochs}-s{s.seeds}.json"
