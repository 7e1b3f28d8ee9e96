"""Folders of records and run folders: finding records, and the status of runs."""

import os
import platform
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spinal_repro.errors import UserError
from spinal_repro.io import STATUS, is_locked, read_json, write_json
from spinal_repro.records.record import AnyRecord, Record, load_record, read_record

RECORD = "record.json"


def record_files(folder: Path) -> Iterator[Path]:
    """Find every record below a folder of runs or of records, sorted by path.

    Of a run folder that is ``record.json``. Hidden folders are skipped.
    """
    for place, folders, files in os.walk(folder):
        is_run = STATUS in files or RECORD in files
        folders[:] = [] if is_run else sorted(name for name in folders if name[0] != ".")
        names = [RECORD] * (RECORD in files) if is_run else sorted(files)
        yield from (Path(place, name) for name in names if name.endswith(".json"))


def read_records(folders: Iterable[Path], history: bool = True) -> list[AnyRecord]:
    """Read all records below folders with a test result; of equal runs the first.

    ``history=False`` drops history and timing: thousands of records then take little memory.
    """
    found: list[AnyRecord] = []
    seen = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder} of records; give one: --records DIR")
        for path in record_files(folder):
            record = load_record(path)
            if isinstance(record, Record):
                key = record.identity, record.seed
                if record.test is None or key in seen:
                    continue
                seen.add(key)
                if not history:
                    record = replace(record, history=[], timing=[])
            found.append(record)
    return found


def write_status(folder: Path, state: str, **details: Any) -> None:
    """Write the status of a run: ``running``, ``done``, ``failed`` or ``interrupted``."""
    who = {"pid": os.getpid(), "host": platform.node(), "time": time.strftime("%F %T")}
    write_json(folder / STATUS, {"state": state, **who, **details})


def error_details(error: BaseException) -> dict[str, str]:
    """Status fields of an error: its message, and the traceback unless a user can fix it."""
    if isinstance(error, UserError) or not isinstance(error, Exception):
        return {"message": str(error) or type(error).__name__}
    return {
        "message": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }


def run_folders(runs: Path) -> Iterator[Path]:
    """Find every run folder below ``runs``, sorted."""
    yield from sorted(path.parent for path in runs.glob(f"*/*/*/{STATUS}"))


def describe(folder: Path, metrics: bool = False) -> dict[str, Any]:
    """Summarise a run folder in one row: state, epochs, test accuracies in percent, metrics."""
    row: dict[str, Any] = {"run": "/".join(folder.parts[-3:])}
    try:
        status = read_json(folder / STATUS)
        if not isinstance(status, Mapping) or not isinstance(status.get("state"), str):
            raise UserError(f"{STATUS} has no state")
        row |= {"state": status["state"], "epochs": status.get("epochs", "")}
        if row["state"] == "running" and not is_locked(folder):
            row["state"] = "interrupted"
        if not (folder / RECORD).is_file():
            if status.get("message"):
                row["message"] = str(status["message"])
            return row
        record = read_record(folder / RECORD)
    except UserError as error:
        return {**row, "state": "unreadable", "message": str(error)}
    test = record.test
    return row | {
        "state": "done",
        "test %": None if test is None else 100 * test.selected.accuracy,
        "last %": None if test is None else 100 * test.last.accuracy,
        "selected": record.selection.epoch,
        "reduced": "; ".join(record.reduced_budget),
        **((test and metrics and test.selected.metrics) or {}),
    }
