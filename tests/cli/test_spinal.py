"""``spinal``: ``status`` in whatever state run folders are, and errors of all commands."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from helpers.made_records import committed

from spinal_repro import __version__
from spinal_repro.records.record import parse_record, write_record
from spinal_repro.records.store import RECORD, write_status


def add_run(runs: Path, name: str, *status: str, **fields: str) -> Path:
    folder = runs / name
    folder.mkdir(parents=True)
    write_status(folder, *status, **fields)
    return folder


@pytest.fixture
def rows(call):
    """The cells of each row of ``spinal status`` that are not empty, by the name of its run."""

    def status() -> dict[str, list[str]]:
        table = list(csv.DictReader(io.StringIO(call("spinal status --format csv").out)))
        return {row.pop("run"): [text for text in row.values() if text] for row in table}

    return status


@pytest.mark.parametrize("name", ["", "somewhere"])
def test_every_state(here, rows, call, monkeypatch, name):
    runs = here / (name or "runs")
    if name:
        monkeypatch.setenv("SPINAL_RUNS", str(runs))
    done = add_run(runs, "cnn/paper-1/s0", "done", epochs="8/8")
    record = committed()
    record["test"]["selected"]["accuracy"], record["test"]["last"]["accuracy"] = 0.98765, 0.97504
    record["selection"]["epoch"] = 7
    record["reduced_budget"] = ["1 of 8 epochs"]
    write_record(done / RECORD, parse_record(record))
    running = add_run(runs, "cnn/paper-1/s1", "running", epochs="2/8")
    add_run(runs, "cnn/paper-1/s2", "failed", message="ValueError: x")
    add_run(runs, "cnn/paper-1/s3", "running", epochs="3/8")
    broken = add_run(runs, "cnn/paper-1/s4", "done", epochs="8/8")
    (broken / "record.json").write_text("{}")
    with FileLock(running / ".lock"):
        assert {"98.77", "97.50"} <= set(call("spinal status").out.split())
        found = rows()
    assert list(found) == [f"cnn/paper-1/s{seed}" for seed in range(5)]
    assert found["cnn/paper-1/s0"] == ["done", "8/8", "98.765", "97.504", "7", "1 of 8 epochs"]
    assert found["cnn/paper-1/s1"] == ["running", "2/8"]
    assert found["cnn/paper-1/s2"] == ["failed", "ValueError: x"]
    assert found["cnn/paper-1/s3"] == ["interrupted", "3/8"]
    assert found["cnn/paper-1/s4"][0] == "unreadable"


def test_version(call):
    assert call("spinal --version") == (0, f"{__version__}\n", "")


OPTIONS = "data list --config-dir, paper list --records, paper list --runs, tables --records"
MORE = "claims --records, report --out x.html --records, report --out, status"


@pytest.mark.parametrize("words", f"{OPTIONS}, {MORE}".split(", "))
def test_a_folder_that_is_named_must_be_there(words, call, here):
    ended = call(f"spinal {words} nowhere/x")
    assert (ended.code, ended.out) == (2, "") and "nowhere" in ended.err
    assert not list(here.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes")
def test_a_closed_pipe_is_no_error(here):
    code = "from spinal_repro.cli.spinal import main; main(['status', '.'])"
    reader, writer = os.pipe()
    os.close(reader)
    listing = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (listing.stderr, listing.returncode) == (b"", 141)
