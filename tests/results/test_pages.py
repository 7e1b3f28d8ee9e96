"""Tables between the markers of a page."""

import re

import pytest
from helpers.fakes import fc_and_spinal, findings, result
from helpers.made_records import grouped, made

from spinal_repro.errors import UserError
from spinal_repro.paper.cells import load_cells, table_titles
from spinal_repro.results.claims import judge, load_claims
from spinal_repro.results.findings import index_results
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
    kinds = {"bf16": (9613, 9727), "mps": (9622, 9751)}  # right answers of FC and Spinal
    shown = {
        "bf16": ("96.13", "97.27", "+1.14", "1.14 "),
        "mps": ("96.22", "97.51", "+1.29", "1.29 "),
    }
    plain = [made(which, seed, 9800) for which in ("fc", "spinal") for seed in range(3)]
    marked = {}
    for mark, numbers in kinds.items():
        marked[mark] = [
            made(which, seed, right, runtime={"precision": "bf16" if mark == "bf16" else "fp32"})
            for which, right in zip(("fc", "spinal"), numbers, strict=True)
            for seed in range(3)
        ]
        for record in marked[mark]:
            record["environment"]["device"] = "mps" if mark == "mps" else "cpu"
    every = grouped(CELLS, [*plain, *marked["bf16"], *marked["mps"]])
    known = index_results(every, {}, table_titles())
    found = {name: text.splitlines() for name, text in files(known).items()}
    html = render(known, judge(load_claims(), known), [])
    found["report"] = re.findall(r"<tr.*?</tr>", html, re.DOTALL)
    for mark, numbers in shown.items():
        alone = index_results(grouped(CELLS, marked[mark]), {}, table_titles())
        found["front"] = fill(page("mnist/cnn_*"), alone).splitlines()
        places = set()
        for name, rows in found.items():
            for line in rows:
                if any(number in line for number in numbers):
                    places.add(name.partition(".")[0])
                    assert mark in line, f"{name}: {line}"
        tables = {"tables/mnist", "tables/pairs", "tables/selection"}
        assert places == tables | {"README", "front", "report"}
