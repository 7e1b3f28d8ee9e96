"""``spinal records add``: check records and put them among the committed ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spinal_repro.errors import UserError

RECORDS = Path("results/records")


def add_parser(commands: Any) -> None:
    """Add the command."""
    records = commands.add_parser("records", help="records contributed to the results")
    verbs = records.add_subparsers(required=True, metavar="COMMAND")
    add = verbs.add_parser(
        "add",
        help="check records and copy them into results/records/",
        description="Checks that every record holds together (identity, counts, history, "
        "accuracies, hashes), says what it does differently from its published cell, and copies "
        "it. Nothing is copied unless all hold.",
    )
    add.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="records, or folders of finished runs"
    )
    add.add_argument(
        "--out", type=Path, default=RECORDS, help=f"folder to copy to (default: {RECORDS})"
    )
    add.set_defaults(command=lambda given: add_records(given.files, given.out))


def add_records(files: Sequence[Path], out: Path) -> None:
    """Check records and copy them below ``out``.

    Raises:
        UserError: naming every record that is refused and why; nothing is copied then.
    """
    from spinal_repro.io import write_json
    from spinal_repro.paper.cells import load_cells
    from spinal_repro.records.store import read_record, read_records
    from spinal_repro.results.cells import cell_of

    known = read_records([out], without=("history", "timing")) if out.is_dir() else []
    cells = {cell.name: cell for cell in load_cells()}
    taken: dict[Path, dict[str, Any]] = {}
    refused: list[str] = []
    for given in files:
        path = given / "record.json" if given.is_dir() else given
        record = read_record(path)
        try:
            if record.get("kind") == "regression":
                name = _regression(record)
            else:
                name = _run(record, cell_of(record, cells), [*known, *taken.values()], str(path))
            if (out / name).exists() or out / name in taken:
                raise UserError(f"{out / name} is there already")
            taken[out / name] = record
        except UserError as error:
            refused.append(f"{path}: {error}")
    if refused:
        raise UserError("nothing was added; refused: " + "; ".join(refused))
    for target, record in taken.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, record)
        except OSError as error:
            raise UserError(f"{target} cannot be written: {error}") from error
        print(f"added {target}")
    print("now make the tables again: spinal tables")


def _run(record: dict[str, Any], cell: Any, others: Sequence[dict[str, Any]], path: str) -> str:
    """Check the record of a run; say what is unusual about it.

    Returns:
        Where it belongs, relative to the folder of the records.
    """
    from spinal_repro.paper.sizes import count_model
    from spinal_repro.records.check import check_record
    from spinal_repro.records.compare import differences, reductions

    wrong = check_record(record, count_model)
    if wrong:
        raise UserError("; ".join(wrong))
    same = [o for o in others if o.get("identity") == record["identity"]]
    if any(other.get("seed") == record["seed"] for other in same):
        raise UserError(f"this run (identity {record['identity']}, seed {record['seed']}) is known")
    if cell is None:
        raise UserError(
            "it names no published cell; train one with spinal-train paper=CELL "
            "(spinal paper list names them)"
        )
    config = record["config"]
    for mark in (*reductions(config, cell.config), *differences(config, cell.config)):
        print(f"{path}: differs from {cell.name}: {mark}")
    if record["git"]["modified"] is not False:
        print(f"{path}: was not made by a commit as it stands: {record['git']['commit']}")
    for key in ("train_hash", "test_hash"):
        if any(_other_data(record, other, key) for other in others):
            print(f"{path}: read other images than the records known so far (data.{key})")
    leaf = cell.name.rpartition("/")[2]
    protocol = config["protocol"]["name"]
    return f"{cell.table}/{leaf}-{protocol}-{record['identity']}-s{record['seed']}.json"


def _other_data(record: dict[str, Any], other: dict[str, Any], key: str) -> bool:
    """Whether another record of the same data set was made from other images."""
    if "data" not in other or "dataset" not in other.get("config", {}):
        return False
    same = other["config"]["dataset"]["name"] == record["config"]["dataset"]["name"]
    return same and bool(other["data"][key] != record["data"][key])


def _regression(record: dict[str, Any]) -> str:
    from spinal_repro.records.check import check_regression

    wrong = check_regression(record)
    if wrong:
        raise UserError("; ".join(wrong))
    s = record["settings"]
    return f"regression/{s['target']}-{s['layers']}-{s['epochs']}-s{s['seeds']}.json"
