"""The benchmark: its measurements, its time limit, and its page."""

import itertools
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
if not SCRIPTS.is_dir():
    pytest.skip("scripts/ is in the repository, not in the source archive", allow_module_level=True)


@pytest.fixture
def benchmark(monkeypatch):
    """The script, with data sets of a few images."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import benchmark
    from bench import cases, training

    for module in (cases, training):
        monkeypatch.setattr(module, "SIZES", {"mnist": (400, 200), "cifar10": (400, 200)})
    yield benchmark
    for name in [name for name in sys.modules if name.split(".")[0] in ("bench", "benchmark")]:
        del sys.modules[name]


def call(benchmark, monkeypatch, out, *arguments):
    words = ["--parts", "loops", "--models", "cnn", "--device", "cpu", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, *arguments])
    benchmark.main()


def test_shares_of_an_epoch_are_of_a_whole(benchmark, monkeypatch, tmp_path):
    out = tmp_path / "benchmark.json"
    call(benchmark, monkeypatch, out, "--seconds", "0.05", "--repeats", "1")
    loops = json.loads(out.read_text())["loops"]
    assert [row["head"] for row in loops["rows"]] == ["fc", "spinal"]
    for row in loops["rows"]:
        assert row["precision"] == "fp32" and row["images"] == "noise"
        assert list(row["epoch"]) == ["steps", "batches", "evaluation", "checkpoint"]
        assert sum(row["epoch"].values()) == pytest.approx(1)
        assert min(row["epoch"].values()) > 0


def test_no_network_starts_after_the_time_is_up(benchmark, monkeypatch, tmp_path, capsys):
    out, clock = tmp_path / "benchmark.json", itertools.count(step=61.0)
    monkeypatch.setattr(benchmark.time, "monotonic", lambda: next(clock))
    call(benchmark, monkeypatch, out, "--minutes", "1")
    assert not out.exists() and "cnn fc: not measured" in capsys.readouterr().out


def test_the_page_shows_what_was_measured(benchmark, monkeypatch, tmp_path):
    page, text = tmp_path / "speed.md", (ROOT / "docs" / "speed.md").read_text()
    emptied = benchmark.fill(text, {})
    assert emptied.count("Not measured yet.") == text.count("<!-- end -->") > 5
    page.write_text(emptied)
    call(benchmark, monkeypatch, ROOT / "results" / "benchmark.json", "--page", str(page))
    assert page.read_text() == text
