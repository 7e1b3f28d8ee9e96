"""Records and the status of runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spinal_repro.errors import UserError
from spinal_repro.io import LOCK, read_json, write_json
from spinal_repro.records.store import (
    SCHEMA_VERSION,
    describe,
    read_record,
    read_records,
    run_folders,
    write_record,
    write_status,
)

RECORD = {
    "test": {"selected": {"accuracy": 0.9876}, "last": {"accuracy": 0.975}},
    "selection": {"epoch": 3},
    "reduced_budget": ["1 of 8 epochs", "at most 100 images a split"],
}


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "mnist-cnn-fc" / "heldout-0a1b2c3d" / "s0"
    folder.mkdir(parents=True)
    return folder


def test_record_round_trip(folder):
    path = write_record(folder, RECORD)
    assert path == folder / "record.json"
    assert read_record(path) == {"schema_version": SCHEMA_VERSION, **RECORD}


@pytest.mark.parametrize("content", [{"schema_version": 999}, {}, [1, 2], "text", None])
def test_records_of_another_schema_are_refused(folder, content):
    write_json(folder / "record.json", content)
    with pytest.raises(UserError, match=f"schema version .*, expected {SCHEMA_VERSION}"):
        read_record(folder / "record.json")


def test_unreadable_records_are_refused_by_name(folder):
    path = folder / "record.json"
    with pytest.raises(UserError, match=r"record\.json cannot be read"):
        read_record(path)
    path.write_text('{"schema_version": 1, "test"')
    with pytest.raises(UserError, match=r"record\.json cannot be read"):
        read_record(path)


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
    write_record(folder, RECORD)
    assert describe(folder) == {
        "run": "mnist-cnn-fc/heldout-0a1b2c3d/s0",
        "state": "done",
        "epochs": "8/8",
        "test %": pytest.approx(98.76),
        "last %": pytest.approx(97.5),
        "selected": 3,
        "reduced": "1 of 8 epochs; at most 100 images a split",
    }


def test_a_run_killed_between_record_and_status_is_finished(folder):
    write_status(folder, "running", epochs="8/8")
    write_record(folder, RECORD)
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
    assert row["reduced"]  # says why


@pytest.mark.parametrize(
    "record", ['{"schema_version": 1}', '{"schema_version": 0}', "{", "[]"], ids=repr
)
def test_a_finished_run_with_an_unreadable_record(folder, record):
    write_status(folder, "done", epochs="8/8")
    (folder / "record.json").write_text(record)
    row = describe(folder)
    assert row["state"] == "unreadable"
    assert row["reduced"]
    assert "test %" not in row


def test_records_are_found_among_runs_and_among_committed_ones(tmp_path):
    runs, committed = tmp_path / "runs", tmp_path / "records"
    for seed in (1, 0):
        folder = runs / "mnist-cnn-fc" / "paper-1" / f"s{seed}"
        folder.mkdir(parents=True)
        write_status(folder, "done")
        write_record(folder, {"identity": "1", "seed": seed, "history": [{"epoch": 1}]})
    unfinished = runs / "mnist-cnn-fc" / "paper-1" / "s2"
    unfinished.mkdir()
    write_status(unfinished, "running")
    committed.mkdir()
    write_json(committed / "a.json", {"schema_version": 1, "identity": "1", "seed": 0, "from": "a"})
    write_json(committed / "b.json", {"schema_version": 1, "identity": "2", "seed": 0})
    (committed / "notes.txt").write_text("no record")
    found = read_records([committed, runs], without=["history"])
    assert [(r["identity"], r["seed"]) for r in found] == [("1", 0), ("2", 0), ("1", 1)]
    assert found[0]["from"] == "a" and "history" not in found[2]  # the first of equal ones
    assert len(read_records([runs])) == 2 and read_records([runs])[0]["history"] == [{"epoch": 1}]
    assert len(read_records([runs / "mnist-cnn-fc" / "paper-1" / "s1"])) == 1


def test_records_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        read_records([tmp_path / "nowhere"])
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UserError, match=r"x\.json has schema version None"):
        read_records([tmp_path])
