"""``spinal status``: one row a run, whatever state its folder is in."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from helpers.made_records import committed

from spinal_repro import __version__
from spinal_repro.cli.spinal import main
from spinal_repro.records.record import Record, parse_record, write_record
from spinal_repro.records.store import RECORD, write_status


def record(selected: float, last: float, epoch: int, *reduced: str) -> Record:
    """A real record with these accuracies."""
    whole = committed()
    whole["test"]["selected"]["accuracy"], whole["test"]["last"]["accuracy"] = selected, last
    whole["selection"]["epoch"] = epoch
    return parse_record(whole | {"reduced_budget": list(reduced)})


@pytest.fixture
def runs(tmp_path) -> Path:
    return tmp_path / "runs"


def add_run(runs: Path, name: str) -> Path:
    folder = runs / name
    folder.mkdir(parents=True)
    return folder


def rows(capsys) -> dict[str, list[str]]:
    """The printed table: the cells of each row by the name of its run."""
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["run", "state"]
    return {line.split()[0]: line.split()[1:] for line in lines}


def test_no_runs(runs, capsys):
    runs.mkdir()
    main(["status", str(runs)])
    assert capsys.readouterr().out == f"no runs in {runs}\n"


def test_a_folder_that_is_not_there(runs, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["status", str(runs)])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"spinal: there is no folder {runs}; ")
    assert len(printed.err.splitlines()) == 1


def test_every_state(runs, capsys):
    done = add_run(runs, "mnist-cnn-fc/heldout-1/s0")
    write_status(done, "done", epochs="8/8")
    write_record(done / RECORD, record(0.98765, 0.97504, 7, "1 of 8 epochs"))
    running = add_run(runs, "mnist-cnn-fc/heldout-1/s1")
    write_status(running, "running", epochs="2/8")
    write_status(add_run(runs, "mnist-cnn-fc/heldout-1/s2"), "failed", message="ValueError: x")
    write_status(add_run(runs, "mnist-cnn-fc/heldout-1/s3"), "running", epochs="3/8")
    (add_run(runs, "mnist-cnn-fc/heldout-1/s4") / "status.json").write_text("{")
    broken = add_run(runs, "mnist-cnn-fc/heldout-1/s5")
    write_status(broken, "done", epochs="8/8")
    (broken / "record.json").write_text("{}")

    with FileLock(running / ".lock"):
        main(["status", str(runs)])
    table = rows(capsys)
    names = [f"mnist-cnn-fc/heldout-1/s{seed}" for seed in range(6)]
    assert list(table) == names
    assert table[names[0]][:5] == ["done", "8/8", "98.77", "97.50", "7"]
    assert " ".join(table[names[0]][5:]) == "1 of 8 epochs"
    assert table[names[1]] == ["running", "2/8"]
    assert table[names[2]] == ["failed", "ValueError:", "x"]
    assert table[names[3]] == ["interrupted", "3/8"]
    assert table[names[4]][0] == "unreadable"
    assert table[names[5]][0] == "unreadable"
    assert "98.77" not in table[names[5]]


def test_the_folder_comes_from_the_environment(runs, capsys, monkeypatch, tmp_path):
    write_status(add_run(runs, "a/paper-2/s0"), "failed")
    monkeypatch.setenv("SPINAL_RUNS", str(runs))
    main(["status"])
    assert list(rows(capsys)) == ["a/paper-2/s0"]

    monkeypatch.delenv("SPINAL_RUNS")
    monkeypatch.chdir(tmp_path)  # and else it is ./runs
    main(["status"])
    assert list(rows(capsys)) == ["a/paper-2/s0"]


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["stauts"], ["status", "a", "b"]], ids=str)
def test_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: spinal" in capsys.readouterr().err


def test_status_of_nothing_needs_neither_torch_nor_pandas(tmp_path):
    code = (
        "import sys\nfor name in ('torch', 'pandas'): sys.modules[name] = None\n"
        f"from spinal_repro.cli.spinal import main; main(['status', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"no runs in {tmp_path}\n")


LONG = "x" * 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", LONG],
        ["predict", "run", LONG],
        ["eval", LONG],
        ["data", "info", LONG],
        ["data", "verify", "mnist", "--root", LONG],
        ["data", "import", "mnist", LONG],
        ["search", "--space", f"{LONG}.yaml"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_name_that_no_file_can_have(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    said = capsys.readouterr().err
    assert (
        os.strerror(errno.ENAMETOOLONG) in said and len(said.splitlines()) == 1 and len(said) < 500
    )


def test_a_table_is_shown_before_it_is_written(tmp_path, capsys):
    command = ["regression", "--seeds", "1", "--epochs", "1", "--jobs", "1", "--out"]
    with pytest.raises(SystemExit, match="2"):
        main([*command, str(tmp_path)])
    out, err = capsys.readouterr()
    assert "Variance" in out and "not a regular file" in err and "Traceback" not in err


def test_a_negative_seed(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["data", "show", "digits", "--seed", "-1"])
    assert "--seed must be at least 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["data", "list", "--config-dir"],
        ["paper", "list", "--records"],
        ["paper", "list", "--runs"],
    ],
    ids=" ".join,
)
def test_a_folder_that_is_named_must_be_there(command, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*command, str(tmp_path / "nowhere")])
    assert f"there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["null", "[]", "{}", '{"state": null}', '{"state": 3}'])
def test_a_status_that_says_nothing(runs, capsys, status):
    (add_run(runs, "a/paper-2/s0") / "status.json").write_text(status)
    main(["status", str(runs)])
    out = capsys.readouterr().out
    assert "unreadable" in out and "has no state" in out


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-c", "from spinal_repro.cli.spinal import main; main()"]
    command += ["paper", "list"]
    reader, writer = os.pipe()
    os.close(reader)
    listing = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (listing.stderr, listing.returncode) == (b"", 141)
