"""The record of a run: one small JSON, enough to rebuild every table without retraining.

This module never imports torch, so that listing runs is quick.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinal_repro.errors import UserError
from spinal_repro.files import read_json, write_json

if TYPE_CHECKING:
    from spinal_repro.schema import Config

SCHEMA_VERSION = 1
RECORD, STATUS = "record.json", "status.json"


def write_record(folder: Path, record: dict[str, Any]) -> Path:
    """Write the record of a finished run into its folder."""
    path = folder / RECORD
    write_json(path, {"schema_version": SCHEMA_VERSION, **record})
    return path


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        UserError: where it is no record, or one of another schema version.
    """
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"the record {path} cannot be read: {error}") from error
    version = record.get("schema_version") if isinstance(record, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} has schema version {version}, expected {SCHEMA_VERSION}")
    return dict(record)


def record_files(folder: Path) -> Iterator[Path]:
    """Every record below a folder, in the order of their paths.

    A run folder holds its ``record.json`` once it is finished, among other files; any other
    folder holds records under names of their own.

    Args:
        folder: Run folders (``runs/``), or committed records (``results/records/``), or one run.
    """
    for place, folders, files in os.walk(folder):
        is_run = STATUS in files or RECORD in files
        # what tools leave inside a run or in hidden folders is no record
        folders[:] = [] if is_run else sorted(name for name in folders if name[0] != ".")
        names = [RECORD] if is_run else sorted(files)
        yield from (Path(place, n) for n in names if n in files and n.endswith(".json"))


def read_records(folders: Iterable[Path], without: Iterable[str] = ()) -> list[dict[str, Any]]:
    """All records below folders; of equal runs (identity and seed), the first alone.

    Records of runs that did not read the test part are left out.

    Args:
        folders: Searched in this order.
        without: Parts of a record to drop at once, e.g. ``history``: thousands stay small.

    Raises:
        UserError: for a folder that is not there and for a file that is no record.
    """
    found, seen = [], set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder} of records; name one by --records DIR")
        for path in record_files(folder):
            record = read_record(path)
            if record.get("test", record) is None:  # data.test=false: it judges nothing
                continue
            for part in without:
                record.pop(part, None)
            key = (record.get("identity"), record.get("seed"))
            if None not in key:  # a record of many seeds is sorted out seed by seed, see cells.py
                if key in seen:
                    continue
                seen.add(key)
            found.append(record)
    return found


def stored_config(config: Mapping[str, Any]) -> "Config":
    """A configuration as JSON has it, of a record or of a cell, made one to work with.

    Keys that are younger than the record have today's defaults.

    Raises:
        UserError: where it is not valid.
    """
    from spinal_repro.config import validate

    config = {**config, "recipe": dict(config["recipe"])}
    stages = config["recipe"].get("stages")
    if stages:  # JSON has no whole numbers as keys
        config["recipe"]["stages"] = {int(epoch): lr for epoch, lr in stages.items()}
    return validate(config)


def write_status(folder: Path, state: str, **details: Any) -> None:
    """Note what a run is doing: ``running``, ``interrupted``, ``failed`` or ``done``."""
    status = {"state": state, "pid": os.getpid(), "time": time.strftime("%F %T"), **details}
    write_json(folder / STATUS, status)


def run_folders(runs: Path) -> Iterator[Path]:
    """Every run folder below ``runs``, in the order of their names."""
    yield from sorted(path.parent for path in runs.glob(f"*/*/*/{STATUS}"))


def describe(folder: Path) -> dict[str, Any]:
    """One row about a run folder: what it is, how far it came and what came out.

    Accuracies are percentages of the test set.
    """
    cell, protocol, seed = folder.parts[-3:]
    row: dict[str, Any] = {"run": f"{cell}/{protocol}/{seed}", "state": "unreadable"}
    try:
        status = read_json(folder / STATUS)
        row |= {"state": status["state"], "epochs": status.get("epochs", "")}
        if row["state"] == "running" and not _alive(int(status["pid"])):
            row["state"] = "stopped"
        if (folder / RECORD).is_file():
            record = read_record(folder / RECORD)
            test = record["test"]  # None where it was not read
            row |= {
                "state": "done",
                "test %": None if test is None else 100 * test["selected"]["accuracy"],
                "last %": None if test is None else 100 * test["last"]["accuracy"],
                "selected": record["selection"]["epoch"],
                "reduced": "; ".join(record["reduced_budget"]),
            }
    except (OSError, ValueError, KeyError, TypeError) as error:
        row |= {"state": "unreadable", "reduced": f"{type(error).__name__}: {error}"}
    return row


def _alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
