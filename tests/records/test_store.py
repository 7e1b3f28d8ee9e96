"""Folders of records, and the status of runs; cli/test_spinal.py has every state."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.made_records import committed

from spinal_repro.errors import UserError
from spinal_repro.io import read_json
from spinal_repro.records.record import parse_record, write_record
from spinal_repro.records.store import RECORD, describe, read_records, run_folders, write_status


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "mnist-cnn-fc" / "heldout-0a1b2c3d" / "s0"
    folder.mkdir(parents=True)
    return folder


def write(path: Path, **changes) -> None:
    write_record(path, replace(parse_record(committed()), **changes))


def test_status_says_who_and_when(folder):
    write_status(folder, "running", epochs="2/8")
    status = read_json(folder / "status.json")
    who = {"state": "running", "pid": os.getpid(), "epochs": "2/8"}
    assert status.items() > who.items() and {"host", "time"} <= status.keys()


def test_run_folders_are_those_with_a_status_in_order(tmp_path):
    names = ["b/heldout-1/s0", "a/paper-2/s1", "a/paper-2/s0", "a/heldout-2/s10"]
    for name in [*names, "c/heldout-1/empty"]:
        (tmp_path / name).mkdir(parents=True)
    for name in names:
        write_status(tmp_path / name, "done")
    write_status(tmp_path, "done")  # too high up for a run
    assert list(run_folders(tmp_path)) == sorted(tmp_path / name for name in names)


def test_a_run_killed_between_record_and_status_is_finished(folder):
    write_status(folder, "running", epochs="8/8")
    write(folder / RECORD)
    assert describe(folder)["state"] == "done"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"state": 3}'])
def test_an_unreadable_status(folder, content):
    (folder / "status.json").write_text(content)
    row = describe(folder)
    assert row["state"] == "unreadable" and row["message"]  # says why


def test_records_are_found_among_runs_and_among_committed_ones(tmp_path):
    runs, shared = tmp_path / "runs", tmp_path / "records"
    cell = runs / "mnist-cnn-fc" / "paper-1"
    for seed, state in ((1, "done"), (0, "done"), (2, "running")):
        (cell / f"s{seed}").mkdir(parents=True)
        write_status(cell / f"s{seed}", state)
        if state == "done":
            write(cell / f"s{seed}" / RECORD, identity="1", seed=seed)
    shared.mkdir()
    write(shared / "a.json", identity="1", seed=0, finished="first")
    write(shared / "b.json", identity="2", seed=0)
    write(shared / "c.json", identity="3", seed=0, test=None)  # decides nothing
    (shared / "notes.txt").write_text("no record")
    found = read_records([shared, runs], history=False)
    assert [(r.identity, r.seed) for r in found] == [("1", 0), ("2", 0), ("1", 1)]
    assert found[0].finished == "first" and found[2].history == []  # the first of equal ones
    assert [r.seed for r in read_records([runs])] == [0, 1] and read_records([runs])[0].history
    assert len(read_records([cell / "s1"])) == 1


def test_records_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        read_records([tmp_path / "nowhere"])
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UserError, match=r"x\.json"):
        read_records([tmp_path])
