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
from spinal_repro.cli.spinal import main
from spinal_repro.records.record import parse_record, write_record
from spinal_repro.records.store import RECORD, write_status


@pytest.fixture
def runs(tmp_path) -> Path:
    return tmp_path / "runs"


def add_run(runs: Path, name: str, *status: str, **fields: str) -> Path:
    folder = runs / name
    folder.mkdir(parents=True)
    if status:
        write_status(folder, *status, **fields)
    return folder


def rows(capsys, *arguments: str) -> dict[str, list[str]]:
    """The cells of each row that are not empty, by the name of its run."""
    main(["status", *arguments, "--format", "csv"])
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    return {row.pop("run"): [text for text in row.values() if text] for row in table}


def refused(*arguments: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(list(arguments))


def test_no_runs(runs, capsys):
    runs.mkdir()
    main(["status", str(runs)])
    assert capsys.readouterr().out == f"no runs in {runs}\n"


def test_every_state(runs, capsys):
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
        main(["status", str(runs)])
        assert {"98.77", "97.50"} <= set(capsys.readouterr().out.split())
        found = rows(capsys, str(runs))
    assert list(found) == [f"cnn/paper-1/s{seed}" for seed in range(5)]
    assert found["cnn/paper-1/s0"] == ["done", "8/8", "98.765", "97.504", "7", "1 of 8 epochs"]
    assert found["cnn/paper-1/s1"] == ["running", "2/8"]
    assert found["cnn/paper-1/s2"] == ["failed", "ValueError: x"]
    assert found["cnn/paper-1/s3"] == ["interrupted", "3/8"]
    assert found["cnn/paper-1/s4"][0] == "unreadable"


@pytest.mark.parametrize("status", ["{", "{}"])
def test_a_broken_status(runs, capsys, status):
    (add_run(runs, "a/paper-2/s0") / "status.json").write_text(status)
    assert rows(capsys, str(runs))["a/paper-2/s0"][0] == "unreadable"


def test_the_folder_comes_from_the_environment(runs, capsys, monkeypatch, tmp_path):
    add_run(runs, "a/paper-2/s0", "failed")
    monkeypatch.setenv("SPINAL_RUNS", str(runs))
    assert list(rows(capsys)) == ["a/paper-2/s0"]
    monkeypatch.delenv("SPINAL_RUNS")
    monkeypatch.chdir(tmp_path)  # and else it is ./runs
    assert list(rows(capsys)) == ["a/paper-2/s0"]


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["stauts"], ["status", "a", "b"]], ids=str)
def test_usage_errors(arguments, capsys):
    refused(*arguments)
    assert "usage: spinal" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["data", "list", "--config-dir"],
        ["paper", "list", "--records"],
        ["paper", "list", "--runs"],
    ],
    ids=" ".join,
)
def test_a_folder_that_is_named_must_be_there(command, tmp_path, capsys):
    refused(*command, str(tmp_path / "nowhere"))
    out, err = capsys.readouterr()
    assert out == "" and f"there is no folder {tmp_path / 'nowhere'}" in err


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes")
def test_a_closed_pipe_is_no_error():
    command = [sys.executable, "-c", "from spinal_repro.cli.spinal import main; main()"]
    reader, writer = os.pipe()
    os.close(reader)
    listing = subprocess.run([*command, "paper", "list"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (listing.stderr, listing.returncode) == (b"", 141)
