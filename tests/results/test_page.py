"""The report: self-contained, escaped, the same bytes, and its controls work in a browser."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.made_records import FC, SPINAL, made, regression_record

from spinal_repro.paper.cells import load_cells
from spinal_repro.paper.claims import Claim
from spinal_repro.records.record import parse_record
from spinal_repro.records.store import read_records
from spinal_repro.results.cells import group_records_by_cell, own_runs
from spinal_repro.results.figures import Drawn
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.pages import files
from spinal_repro.results.report import render
from spinal_repro.results.sizes import cell_counts

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PICTURE = Drawn("a", "A figure", "What it shows", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"")
ABOVE = Claim("Better", "a table", "accuracy", "mean_above", {"cells": ["mnist/cnn_spinal8"]})
PAIR = {"cell": "mnist/cnn_spinal8", "against": "mnist/cnn_fc", "quantity": "head_parameters"}
COST = Claim("Cheaper", "a table", "cost", "counts", PAIR)
NEVER = Claim("Elsewhere", "a table", "accuracy", "reaches", {"cell": "mnist/cnn_fc", "value": 100})


@pytest.fixture(scope="module")
def page() -> str:
    """The committed runs of the MNIST CNN, and cells that nobody ran."""
    cells = load_cells("mnist/*cnn_*")
    results = group_records_by_cell(cells, read_records([ROOT / "results/records/mnist"]))
    counts = json.loads((ROOT / "results/counts.json").read_text())
    known = ResultsIndex(results, cell_counts(results, counts), [ABOVE, COST, NEVER])
    return render(known, [PICTURE])


def test_the_page_has_runs_and_what_was_not_run(page):
    records = [
        json.loads(p.read_text()) for p in (ROOT / "results/records/mnist").glob("*cnn*.json")
    ]
    commits = {record["git"]["commit"][:10] for record in records}
    assert all(commit in page for commit in commits)
    assert len(re.findall(r"^<tr><td>\d+<td>", page, re.MULTILINE)) == len(records) >= 15
    assert "not run" in page and "98.45" in page and "spinal-train paper=mnist/cnn_fc" in page


def test_each_training_counts_once():
    """Two readings of three Spinal nets, with either target; the normal ones are the same (Q2)."""
    settings = itertools.product(("column", "square"), ("distinct", "reused"))
    records = [parse_record(regression_record(3, target=t, layers=n)) for t, n in settings]
    results = group_records_by_cell(load_cells("regression/sum_*"), records)
    known = ResultsIndex(results, {})
    assert f"in {2 * (3 + 3 + 3)} trainings" in render(known)


def test_nothing_comes_from_outside(page):
    assert not re.search(r"(?:src|href|action)=(?!\"(?:data:|#))", page)
    assert not re.search(r"@import|url\(", page)
    assert "default-src 'none'" in page


def test_identifiers_are_unique(page):
    found = re.findall(r' id="([^"]+)"', page)
    assert len(found) == len(set(found))
    targets = re.findall(r'(?:href="#|aria-controls=")([^"]+)"', page)
    assert set(targets) <= set(found)


def many_records(kind: str, count: int) -> list[Any]:
    """So many seeds of two cells, settings with a changed recipe, or runs that name no cell."""
    found = []
    for i in range(count):
        changed = {"recipe": {"lr": 0.02 + i // 2 * 1e-4}} if kind != "seeds" else {}
        seed, which = i // 2 if kind == "seeds" else 0, ("fc", "spinal")[i % 2]
        found.append(made(which, seed, 9700 + i % 50, identity=f"{i:08x}", **changed))
        found[-1]["config"]["cell"] = None if kind == "own" else found[-1]["config"]["cell"]
    return found


@pytest.mark.parametrize(("kind", "most"), [("seeds", 700), ("settings", 3000), ("own", 550)])
def test_another_record_costs_few_calls_and_few_bytes_of_the_page(kind, most):
    """Counted, not timed, so that it holds on a busy machine."""

    def cost(count: int) -> tuple[int, str]:
        stored, calls = many_records(kind, count), 0

        def count_calls(_frame: Any, event: str, _argument: Any) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count_calls)
        try:
            records, cells = [parse_record(one) for one in stored], [FC, SPINAL]
            results, own = group_records_by_cell(cells, records), own_runs(cells, records)
            known = ResultsIndex(results, {}, own=own)
            files(known)
            page = render(known)
        finally:
            sys.setprofile(None)
        return calls, page

    cost(4)  # imports
    (few, short), (many, long) = cost(100), cost(200)
    assert (many - few) / 100 < most and (len(long) - len(short)) / 100 < 50
    left = re.findall(r"(\d+) more with a changed recipe .*?tables/(\w+)\.csv", long)
    assert left == ([("190", "mnist"), ("95", "pairs")] if kind == "settings" else [])


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium to try the page's controls")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_controls_work_in_a_browser(page, tmp_path, width):
    script = (Path(__file__).parent / "selfcheck.js").read_text()
    copy = tmp_path / "index.html"
    copy.write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", copy.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'data-selfcheck="([^"]*)"', done.stdout)
    assert found, f"the page's script did not run to its end: {done.stderr[-500:]}"
    assert found[1] == "ok"
