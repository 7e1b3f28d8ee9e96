"""The record of a run: one small JSON, enough to rebuild every table without retraining.

This module never imports torch, so that listing runs is quick.
"""

import os
import platform
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinal_repro.errors import UserError
from spinal_repro.io import STATUS, is_locked, read_json, write_json
from spinal_repro.records.record import refuse_other_shapes

if TYPE_CHECKING:
    from spinal_repro.config.schema import Config

KEY = "schema_version"
SCHEMA_VERSION = CONFIG_VERSION = 1  # a key with a default, added later, is no new version
RECORD = "record.json"
RETIRED = ("self_check",)  # settings of runtime that older records have, and that changed no result


def write_record(folder: Path, record: dict[str, Any]) -> Path:
    """Write the record of a finished run into its folder."""
    path = folder / RECORD
    write_json(path, {"schema_version": SCHEMA_VERSION, **record})
    return path


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        UserError: where it is no record, one of another schema version, or holds values that no
            run has.
    """
    record = read_json(path)
    _check_version(record.get(KEY) if isinstance(record, Mapping) else None, str(path))
    refuse_other_shapes(record, str(path), whole=False)
    return dict(record)


def _check_version(version: Any, what: str) -> None:
    if type(version) is not int or version != SCHEMA_VERSION:
        raise UserError(
            f"{what} has schema version {version!r}, expected {SCHEMA_VERSION}; read it with the "
            f"spinal_repro that wrote it, or install a newer one"
        )


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
    from spinal_repro.config.validate import validate

    if not isinstance(config, Mapping):
        raise UserError(f"the configuration must be groups of settings, got {config!r}")
    _check_version(config.get(KEY, 1), "the configuration")  # older files have no version
    config = {key: value for key, value in config.items() if key != KEY}
    runtime = config.get("runtime")
    if isinstance(runtime, Mapping):
        kept = {key: value for key, value in runtime.items() if key not in RETIRED}
        config = {**config, "runtime": kept}
    return validate(config)


def write_status(folder: Path, state: str, **details: Any) -> None:
    """Note what a run is doing.

    Args:
        folder: Of the run.
        state: ``running``, ``done``, ``failed`` or ``interrupted``.
        details: ``epochs``, ``message``, ``traceback``.
    """
    who = {"pid": os.getpid(), "host": platform.node()}
    status = {"state": state, **who, "time": time.strftime("%F %T"), **details}
    write_json(folder / STATUS, status)


def error_details(error: BaseException) -> dict[str, str]:
    """Status fields for an error: its message, and the traceback unless a user can fix it."""
    if isinstance(error, UserError) or not isinstance(error, Exception):
        return {"message": str(error) or type(error).__name__}
    return {
        "message": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }


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
        if not isinstance(status, Mapping) or not isinstance(status.get("state"), str):
            raise UserError(f"{STATUS} does not say what the run is doing")
        row |= {"state": status["state"], "epochs": status.get("epochs", "")}
        if row["state"] == "running" and not is_locked(folder):
            row["state"] = "interrupted"
        if status.get("message"):
            row["message"] = str(status["message"])
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
            row.pop("message", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        row |= {"state": "unreadable", "reduced": why}
    return row


def is_alive(status: Mapping[str, Any]) -> bool:
    """Whether the process of this machine that wrote a status runs."""
    pid = status.get("pid")
    if type(pid) is not int or not 0 < pid < 2**31:  # numbers below 1 are process groups
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
