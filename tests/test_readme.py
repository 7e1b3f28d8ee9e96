"""The README rests on whole runs (its table: see cli/test_tables.py), and its code runs."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "results" / "records" / "mnist"


@pytest.mark.parametrize("cell", ["cnn_fc", "cnn_spinal8", "cnn_spinal10"])
def test_the_records_are_whole_runs_of_the_published_recipe(cell):
    records = [json.loads(p.read_text()) for p in sorted(RECORDS.glob(f"{cell}-paper-*.json"))]
    assert [record["seed"] for record in records] == list(range(5))
    for record in records:
        assert record["config"]["cell"] == f"mnist/{cell}" and not record["reduced_budget"]
        assert not record["git"]["modified"] and len(record["history"]) == 8
        test = record["test"]["last"]
        assert test["count"] == 10000 and test["accuracy"] == test["correct"] / test["count"]
        assert test["correct"] == record["history"][-1]["test_correct"]
    assert len({record["identity"] for record in records}) == 1
    assert len({record["data"]["train_hash"] for record in records}) == 1


def test_the_readme_has_a_table_made_from_records():
    assert (
        "<!-- table: mnist/cnn_fc mnist/cnn_spinal8 mnist/cnn_spinal10 -->\n|"
        in (ROOT / "README.md").read_text()
    )


def test_the_code_of_the_readme_runs():
    section = (ROOT / "README.md").read_text().split("## In your own code\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert tuple(names["logits"].shape) == (2, 10)
