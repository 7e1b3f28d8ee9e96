"""Sweeps: every combination in its own folder, finished ones skipped, failures named."""

import sys
from pathlib import Path

import pytest

from spinal_repro.cli.train import EXIT_FAILED, _main
from spinal_repro.records import describe, run_folders
from spinal_repro.sweep import processes
from spinal_repro.sweep.worker import PRELOADED

SMALL = ["data.limit=60", "recipe.epochs=1", "runtime.progress=none", "runtime.device=cpu"]


@pytest.fixture(autouse=True)
def preloaded(monkeypatch) -> None:
    """The process that forks jobs imports what the digits need, once."""
    monkeypatch.setattr(processes, "PRELOADED", (*PRELOADED, "sklearn.datasets"))


def sweep(monkeypatch, tmp_path: Path, *arguments: str) -> int:
    full = ["-m", f"runs={tmp_path / 'runs'}", *SMALL, *arguments]
    monkeypatch.setattr(sys, "argv", ["spinal-train", *full])
    monkeypatch.chdir(tmp_path)
    return _main(full)


def test_every_combination_once(tmp_path, monkeypatch, capsys):
    arguments = ("head=fc,spinal", "seed=0,1")
    assert sweep(monkeypatch, tmp_path, *arguments) == 0
    folders = list(run_folders(tmp_path / "runs"))
    assert len(folders) == 4 and {describe(folder)["state"] for folder in folders} == {"done"}
    assert "4 of 4 runs finished" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]

    stamps = [(folder / "record.json").stat().st_mtime_ns for folder in folders]
    assert sweep(monkeypatch, tmp_path, "head=fc,spinal", "seed=0,1,2") == 0
    assert capsys.readouterr().out.count("already finished") == 4
    assert [(folder / "record.json").stat().st_mtime_ns for folder in folders] == stamps
    assert len(list(run_folders(tmp_path / "runs"))) == 6


@pytest.mark.parametrize("bad", ["recipe.lr=1e30,0.01", "recipe.optimizer=sdg,adam"])
def test_one_failure_loses_nothing_and_is_named(tmp_path, monkeypatch, capsys, bad):
    """The failing job comes first; the ones after it still run."""
    assert sweep(monkeypatch, tmp_path, bad, "recipe.momentum=0") == EXIT_FAILED
    printed = capsys.readouterr()
    assert "1 of 2 runs finished" in printed.out
    last = printed.err.strip().splitlines()[-1]
    assert last.startswith("failed: ") and "head=fc" in last
    assert "Traceback" not in printed.err
    finished = [describe(f)["state"] for f in run_folders(tmp_path / "runs")]
    assert finished.count("done") == 1
