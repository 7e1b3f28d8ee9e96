"""The part of the benchmark with several seeds on one device."""

import itertools
import json
import multiprocessing
import os
import sys
import threading
from pathlib import Path

import pytest
import torch

from spinal_repro.models.backbones import load_backbones

SCRIPTS = Path(__file__).parents[1] / "scripts"
if not SCRIPTS.is_dir():
    pytest.skip("scripts/ is in the repository, not in the source archive", allow_module_level=True)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OURS = ("bench", "benchmark", "ensemble")


@pytest.fixture
def benchmark(monkeypatch):
    """The script, with few images and at most two seeds."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    backbones = load_backbones()
    monkeypatch.setattr(backbones, "_items", {**backbones._items})  # the script adds one
    import benchmark
    from bench import cases, seeds

    monkeypatch.setattr(cases, "SIZES", {"mnist": (400, 200), "cifar10": (400, 200)})
    monkeypatch.setattr(seeds, "COUNTS", {"cnn": (1, 2)})
    yield benchmark
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]


@pytest.fixture
def seeds(benchmark, monkeypatch):
    """The part, with threads for processes."""
    from bench import seeds

    monkeypatch.setattr(seeds, "Process", threading.Thread)
    return seeds


def call(benchmark, monkeypatch, out, *arguments):
    words = ["--parts", "seeds", "--device", "cpu", "--seconds", "0.05", "--repeats", "2"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, "--out", str(out), *arguments])
    benchmark.main()
    return json.loads(out.read_text())["seeds"]["rows"] if out.exists() else []


def check(rows):
    assert [(row["way"], row["seeds"]) for row in rows] == [
        ("processes", 1), ("processes", 2), ("ensemble", 1), ("ensemble", 2),
    ]  # fmt: skip
    for row in rows:
        assert (row["model"], row["head"], row["precision"]) == ("cnn", "spinal", "fp32")
        assert 0 < row["rate"]["low"] <= row["rate"]["median"] <= row["rate"]["high"]
    assert set(rows[0]["to_one"].values()) == {1.0}
    assert min(row["to_one"]["low"] for row in rows) > 0


def test_every_way_is_measured_and_shown(benchmark, seeds, monkeypatch, tmp_path, capsys):
    rows = call(benchmark, monkeypatch, tmp_path / "benchmark.json")
    check(rows)
    assert "MPS: not measured: it needs CUDA" in capsys.readouterr().out
    measured = json.loads((tmp_path / "benchmark.json").read_text())
    page = benchmark.fill("<!-- benchmark: seeds -->\n<!-- end -->", measured)
    assert page.count("\n| cnn | spinal | fp32 |") == 4 and "| ensemble |" in page


@pytest.mark.slow
def test_processes_are_measured(benchmark, monkeypatch, tmp_path):
    check(call(benchmark, monkeypatch, tmp_path / "benchmark.json"))


def test_a_rate_is_that_of_all_processes(seeds):
    class Answering:
        """A process at 100 images a second."""

        def send(self, order):
            self.order = order

        def poll(self, seconds):
            return True

        def recv(self):
            return 0.01

    workers = object.__new__(seeds.Workers)
    workers._workers, workers._threads = [(Answering(), None) for _ in range(4)], 1
    assert workers.seconds_of_an_image("cnn", 3, 0.5) == pytest.approx(1 / 300)
    told = [hasattr(pipe, "order") for pipe, _ in workers._workers]
    assert told == [True, True, True, False]


def test_seeds_of_an_ensemble_are_counted_together(benchmark, seeds):
    case = benchmark.make_case("cnn", "spinal", "fp32", CPU, None)
    steps = list(itertools.islice(seeds._together(case, 2), 8))  # 400 images are 6 and a part
    assert steps == [128] * 6 + [2 * 16, 128]
    assert list(itertools.islice(seeds._single(case, 1), 7)) == [64] * 6 + [16]


def test_nothing_is_measured_after_the_time_is_up(benchmark, seeds, monkeypatch, tmp_path, capsys):
    clock = itertools.count(step=61.0)
    monkeypatch.setattr(benchmark.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(seeds, "Workers", None)  # none is started
    assert call(benchmark, monkeypatch, tmp_path / "out.json", "--minutes", "1") == []
    said = capsys.readouterr().out
    assert "processes and ensemble: not measured: the 1 minutes are over" in said


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("how", ["error", "end"])
def test_a_process_that_fails_is_named(benchmark, seeds, monkeypatch, tmp_path, capsys, how):
    def fail(*_):
        raise (RuntimeError("no memory") if how == "error" else SystemExit)

    monkeypatch.setattr(seeds, "_single", fail)
    assert call(benchmark, monkeypatch, tmp_path / "out.json") == []
    said = capsys.readouterr().out
    reason = {"error": "RuntimeError: no memory", "end": "has ended"}[how]
    assert "processes and ensemble: not measured: " in said and reason in said


def test_a_process_that_was_killed_is_named(seeds):
    ours, theirs = multiprocessing.Pipe()
    workers = object.__new__(seeds.Workers)
    workers._workers, workers._threads = [(ours, threading.Thread())], 1
    with pytest.raises(seeds.UnavailableError, match="has ended"), workers:
        theirs.close()
        workers.seconds_of_an_image("cnn", 1, 0.5)


CONTROL = """#!/bin/sh
read order
echo "$1$order $CUDA_MPS_PIPE_DIRECTORY" >> "$CALLS"
[ "$order" != get_server_list ] || echo "$SERVERS"
[ "$1" != "$FAILING" ]
"""


@pytest.fixture
def server(seeds, monkeypatch, tmp_path):
    """A stand-in for the control of MPS; the file lists its calls."""
    control, calls = tmp_path / "bin" / seeds.CONTROL, tmp_path / "calls"
    control.parent.mkdir()
    control.write_text(CONTROL)
    control.chmod(0o755)
    monkeypatch.setenv("PATH", f"{control.parent}:{os.environ['PATH']}")
    for name, value in {"CALLS": str(calls), "SERVERS": "4711", "FAILING": "none"}.items():
        monkeypatch.setenv(name, value)
    return calls


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a script for sh")
@pytest.mark.parametrize("used", ["4711", ""])
def test_mps_is_started_and_ended(seeds, server, monkeypatch, used):
    monkeypatch.setenv("SERVERS", used)
    with pytest.raises(KeyError), seeds._mps(CUDA) as (variables, in_use):
        assert in_use() == bool(used)
        assert set(variables) == {"CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"}
        folder = variables["CUDA_MPS_PIPE_DIRECTORY"]
        raise KeyError("an error while it runs")
    assert not Path(folder).exists()
    calls = server.read_text().splitlines()
    assert calls == [f"{order} {folder}" for order in ("-d", "get_server_list", "quit")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a script for sh")
def test_mps_that_does_not_start_is_named(seeds, server, monkeypatch):
    monkeypatch.setenv("FAILING", "-d")
    with pytest.raises(seeds.UnavailableError, match=seeds.CONTROL), seeds._mps(CUDA):
        pass
    assert server.read_text().splitlines()[-1].startswith("quit ")


def test_processes_get_the_variables_before_they_start(seeds, monkeypatch):
    ours, theirs = multiprocessing.Pipe()
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.setattr(seeds, "make_case", lambda *_: os.environ["CUDA_MPS_PIPE_DIRECTORY"])
    monkeypatch.setattr(seeds, "_single", lambda case, seed: case)
    monkeypatch.setattr(seeds, "_seconds_of_an_image", lambda case, steps, seconds: steps)
    for order in (("cnn", 1, 0.1), None):
        ours.send(order)
    seeds._work(theirs, 0, (), {"CUDA_MPS_PIPE_DIRECTORY": "there"})
    assert ours.recv() == "there"
