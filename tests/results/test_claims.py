"""The shipped claims: they load, name what exists, and are decided from the committed records."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from spinal_repro.errors import UserError
from spinal_repro.io import write_json
from spinal_repro.paper.cells import load_cells
from spinal_repro.paper.claims import load_claims
from spinal_repro.records.store import read_records
from spinal_repro.results import claims
from spinal_repro.results.cells import group_records_by_cell
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import ResultGroup
from spinal_repro.results.rules import RULES, Verdict
from spinal_repro.results.tables import escape_markdown

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def known() -> ResultsIndex:
    """All cells, with the runs of the MNIST CNN alone: other cells need not be composed."""
    results = group_records_by_cell(
        load_cells("mnist/cnn_*"), read_records([ROOT / "results/records/mnist"])
    )
    counts = json.loads((ROOT / "results/counts.json").read_text())
    ran = {result.cell.name for result in results}
    others = [ResultGroup(cell, "paper", ()) for cell in load_cells() if cell.name not in ran]
    return ResultsIndex([*results, *others], counts, load_claims())


@pytest.fixture(scope="module")
def judged(known) -> dict[str, claims.Judged]:
    return {item.claim.name: item for item in claims.judge(known)}


def test_every_claim_is_decided(judged):
    assert len(judged) >= 68
    assert {item.judgement.verdict for item in judged.values()} <= set(Verdict)
    assert {item.claim.rule for item in judged.values()} == {*RULES.names(), ""}
    assert all(item.judgement.evidence for item in judged.values())


def test_cost_claims_follow_from_closed_forms(judged):
    fc, spinal = 320 * 50 + 50 * 10, 160 * 8 + 5 * 168 * 8 + 48 * 10
    found = judged["mnist_cnn_multiplications"].judgement
    assert found.verdict == "supported"
    assert f"{fc:,} → {spinal:,}" in found.evidence
    assert f"{100 * (1 - spinal / fc):.2f} % fewer" in found.evidence
    fc, spinal = 8 * 200 + 200 * 100 + 100, 4 * 50 + 5 * 54 * 50 + 300
    found = judged["regression_multiplications"].judgement
    assert found.verdict == "supported" and f"{fc:,} → {spinal:,}" in found.evidence
    for name in ("mnist_cnn_activations", "regression_parameters", "regression_activations"):
        assert judged[name].judgement.verdict == "supported"
    heads = [160 * w + 5 * (160 + w) * w + 6 * w * 10 for w in (10, 8)]
    saved = " to ".join(f"{100 * (1 - head / (320 * 50 + 50 * 10)):.2f}" for head in heads)
    for name in ("cost_most_networks", "lower_error_and_cost", "slightly_worse_far_cheaper"):
        kept, left = judged[name].judgement.evidence.split("left out")
        assert f" CNN {saved} and " in kept
        assert "VGG-19_bn" in left and "VGG-5" not in left  # widths that we assumed


def test_a_lead_below_the_resolution_of_the_test_set_is_not_decidable(judged):
    """60,000 and 22,688 test images; of the reference, ± 0.03 is the reading error."""
    for name, image, half in (
        ("sota_qmnist", 100 / 60_000, 196 * math.sqrt(0.9967 * 0.0033 / 60_000)),
        ("sota_fruits360", 100 / 22_688, 196 * math.sqrt(0.9998 * 0.0002 / 22_688)),
    ):
        found = judged[name].judgement
        assert found.verdict == "not decidable here" and f"{image:.4f} points" in found.evidence
        stated = float(re.search(r"accuracy is ± ([\d.]+)", found.evidence)[1])
        assert half <= stated + 0.005 and stated < half + 0.015  # Wilson's is a little wider
    assert judged["sota_caltech101"].judgement.verdict == "not run"  # a lead of 6 points
    assert {judged[name].judgement.verdict for name in judged if name.startswith("placed_")} == {
        "not decidable here"
    }


def test_documents_and_tests_that_evidence_names_exist(judged):
    proved = [item.claim for item in judged.values() if not item.claim.rule]
    cited = re.findall(r"[\w/]+\.(?:md|py)", " ".join(claim.evidence for claim in proved))
    assert proved and cited and all((ROOT / path).is_file() for path in cited)


def test_every_claim_is_counted_and_has_a_row(judged, known):
    assert sum(claims.tally(list(judged.values())).values()) == len(judged)
    page = claims.claims_markdown(known)
    own = sum(not item.claim.from_paper for item in judged.values())
    assert f"{len(judged) - own} sentences" in page and f"{own} sentences" in page
    for item in judged.values():
        assert page.count(f"| {escape_markdown(item.claim.sentence)} |") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "mean_abov"}, "claim 'a': .*did you mean 'mean_above'"),
        ({"parameters": {"cell": "mnist/cnn_fc"}}, "claim 'a': .*cell"),
        ({"sentense": "x"}, r"all\.yaml: .*did you mean 'claims\.a\.sentence'"),
        ({"rule": ""}, "claim 'a': give a rule"),
        ({"source": None}, r"all\.yaml: claims\.a\.source must be text"),
        ({"parameters": {"cells": ["mnist/cnn_spinal9"]}}, "claim 'a': .*'mnist/cnn_spinal8'"),
    ],
)
def test_a_broken_claim_is_refused_by_name(tmp_path, known, change, message):
    claim = {"sentence": "a", "source": "b", "rule": "mean_above", "parameters": {"cells": ["x"]}}
    group = {"title": "All", "order": 1, "claims": {"a": claim}}
    write_json(tmp_path / "all.yaml", group)
    assert [found.name for found in load_claims(tmp_path)] == ["a"]
    claim.update(change)
    write_json(tmp_path / "all.yaml", group)
    with pytest.raises(UserError, match=message):
        claims.judge(replace(known, claims=load_claims(tmp_path)))
