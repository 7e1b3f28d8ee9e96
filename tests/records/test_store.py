"""Folders of records, and the status of runs."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.made_records import committed

from spinal_repro.errors import UserError
from spinal_repro.io import LOCK, read_json
from spinal_repro.records.record import Record, parse_record, write_record
from spinal_repro.records.store import RECORD, describe, read_records, run_folders, write_status


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "mnist-cnn-fc" / "heldout-0a1b2c3d" / "s0"
    folder.mkdir(parents=True)
    return folder


def record(**changes) -> Record:
    whole = parse_record(committed())
    return replace(whole, reduced_budget=["1 of 8 epochs"], **changes)


def test_status_says_who_and_when(folder):
    write_status(folder, "running", epochs="2/8")
    status = read_json(folder / "status.json")
    assert status["state"] == "running"
    assert status["pid"] == os.getpid()
    assert status["epochs"] == "2/8"


def test_run_folders_are_those_with_a_status_in_order(tmp_path):
    names = ["b/heldout-1/s0", "a/paper-2/s1", "a/paper-2/s0", "a/heldout-2/s10"]
    for name in [*names, "c/heldout-1/empty"]:
        (tmp_path / name).mkdir(parents=True)
    for name in names:
        write_status(tmp_path / name, "done")
    write_status(tmp_path, "done")  # no run: it lies too high up
    assert list(run_folders(tmp_path)) == sorted(tmp_path / name for name in names)


def test_a_finished_run(folder):
    write_status(folder, "done", epochs="8/8")
    write_record(folder / RECORD, record())
    test = record().test
    assert describe(folder) == {
        "run": "mnist-cnn-fc/heldout-0a1b2c3d/s0",
        "state": "done",
        "epochs": "8/8",
        "test %": 100 * test.selected.accuracy,
        "last %": 100 * test.last.accuracy,
        "selected": record().selection.epoch,
        "reduced": "1 of 8 epochs",
    }


def test_a_run_killed_between_record_and_status_is_finished(folder):
    write_status(folder, "running", epochs="8/8")
    write_record(folder / RECORD, record())
    assert describe(folder)["state"] == "done"


@pytest.mark.parametrize("state", ["waiting", "failed", "interrupted"])
def test_runs_without_a_record(folder, state):
    write_status(folder, state, epochs="3/8")
    assert describe(folder) == {
        "run": "mnist-cnn-fc/heldout-0a1b2c3d/s0",
        "state": state,
        "epochs": "3/8",
    }


HOLD = (
    "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); "
    "lock.acquire(); print('held', flush=True); sys.stdin.read()"
)


def test_a_run_is_running_while_a_process_holds_its_lock(folder):
    write_status(folder, "running")
    assert describe(folder)["state"] == "interrupted" and not (folder / LOCK).exists()
    command = [sys.executable, "-c", HOLD, str(folder / LOCK)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert describe(folder)["state"] == "running"
        holder.kill()
    assert describe(folder)["state"] == "interrupted"


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", "{}", '{"state": 3}'], ids=repr)
def test_unreadable_status(folder, content):
    (folder / "status.json").write_text(content)
    row = describe(folder)
    assert row["state"] == "unreadable"
    assert row["message"]  # says why


@pytest.mark.parametrize("content", ['{"schema_version": 2}', "{", "[]"], ids=repr)
def test_a_finished_run_with_an_unreadable_record(folder, content):
    write_status(folder, "done", epochs="8/8")
    (folder / RECORD).write_text(content)
    row = describe(folder)
    assert row["state"] == "unreadable" and row["message"] and "test %" not in row


def test_records_are_found_among_runs_and_among_committed_ones(tmp_path):
    runs, shared = tmp_path / "runs", tmp_path / "records"
    for seed in (1, 0):
        folder = runs / "mnist-cnn-fc" / "paper-1" / f"s{seed}"
        folder.mkdir(parents=True)
        write_status(folder, "done")
        write_record(folder / RECORD, record(identity="1", seed=seed))
    unfinished = runs / "mnist-cnn-fc" / "paper-1" / "s2"
    unfinished.mkdir()
    write_status(unfinished, "running")
    shared.mkdir()
    write_record(shared / "a.json", record(identity="1", seed=0, finished="first"))
    write_record(shared / "b.json", record(identity="2", seed=0))
    write_record(shared / "c.json", record(identity="3", seed=0, test=None))  # decides nothing
    (shared / "notes.txt").write_text("no record")
    found = read_records([shared, runs], history=False)
    assert [(r.identity, r.seed) for r in found] == [("1", 0), ("2", 0), ("1", 1)]
    assert found[0].finished == "first" and found[2].history == []  # the first of equal ones
    assert [r.seed for r in read_records([runs])] == [0, 1] and read_records([runs])[0].history
    assert len(read_records([runs / "mnist-cnn-fc" / "paper-1" / "s1"])) == 1


def test_records_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        read_records([tmp_path / "nowhere"])
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UserError, match=r"x\.json"):
        read_records([tmp_path])
