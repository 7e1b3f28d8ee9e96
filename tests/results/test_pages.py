"""Tables between the markers of a page."""

import itertools
import re
from typing import Any

import pytest
from helpers.fakes import fc_and_spinal, findings, result
from helpers.made_records import grouped, made

from spinal_repro.errors import UserError
from spinal_repro.paper.cells import load_cells
from spinal_repro.paper.claims import load_claims
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.pages import files, fill
from spinal_repro.results.report import render

FC, _ = fc_and_spinal()
CELLS = load_cells()
INDEX = findings([FC], [result(FC, [98.0, 98.2]), result(FC, [97.0, 97.2], protocol="heldout")])


def page(marker: str) -> str:
    return f"before\n<!-- table: {marker} -->\nold\n<!-- end -->\nafter\n"


@pytest.mark.parametrize(("marker", "mean"), [("", "98.10"), ("@heldout", "97.10")])
def test_a_marker_may_ask_for_a_protocol(marker, mean):
    filled = fill(page(FC.name + marker), INDEX)
    assert f"| {mean} |" in filled and "old" not in filled
    assert filled.startswith("before\n") and filled.endswith("after\n")
    assert fill(filled, INDEX) == filled


@pytest.mark.parametrize("marker", ["nothing/*", f"{FC.name}@other"])
def test_a_marker_that_matches_nothing_is_named(marker):
    with pytest.raises(UserError, match="matches no cell"):
        fill(page(marker), INDEX)


def test_what_computes_otherwise_is_marked_in_every_row():
    """Wherever one of its accuracies is shown, also beside runs on the CPU in fp32."""
    right = {"bf16": (9613, 9727), "mps": (9637, 9763)}  # answers of FC and Spinal
    shown = {"bf16": ("96.13", "97.27", "+1.14", "1.14 "), "mps": ("96.37", "97.63", "+1.26")}
    records = [made(which, seed, 9800) for which in ("fc", "spinal") for seed in range(3)]
    marked: dict[str, list[dict[str, Any]]] = {"bf16": [], "mps": []}
    for mark, seed, (i, which) in itertools.product(marked, range(3), enumerate(("fc", "spinal"))):
        record = made(which, seed, right[mark][i])
        if mark == "mps":
            record["environment"]["device"] = "mps"
        else:
            record["config"]["runtime"]["precision"] = "bf16"
        marked[mark].append(record)
    every = grouped(CELLS, [*records, *marked["bf16"], *marked["mps"]])
    known = ResultsIndex(every, {}, load_claims())
    found = {name: text.splitlines() for name, text in files(known).items()}
    html = render(known)
    found["report"] = re.findall(r"<tr.*?</tr>", html, re.DOTALL)
    for mark, numbers in shown.items():
        alone = ResultsIndex(grouped(CELLS, marked[mark]), {})
        found["front"] = fill(page("mnist/cnn_*"), alone).splitlines()
        places = set()
        for name, rows in found.items():
            for line in rows:
                if any(number in line for number in numbers):
                    places.add(name.partition(".")[0])
                    assert mark in line, f"{name}: {line}"
        tables = {"tables/mnist", "tables/pairs", "tables/selection"}
        assert places == tables | {"README", "front", "report"}
