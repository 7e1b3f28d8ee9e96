"""What the README shows is what the records give, and its code runs."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "results" / "records" / "mnist_cnn"
SCRIPT = ROOT / "scripts" / "mnist_cnn_table.py"


def test_the_table_is_that_of_the_records():
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"{SCRIPT.name} prints another table; {done.stderr}"


@pytest.mark.parametrize("head, seeds", [("fc", range(5)), ("spinal", range(5))])
def test_the_records_are_whole_runs_of_the_published_recipe(head, seeds):
    records = [json.loads((RECORDS / f"{head}-s{seed}.json").read_text()) for seed in seeds]
    assert [record["seed"] for record in records] == list(seeds)
    for record in records:
        assert record["config"]["head"]["name"] == head and not record["reduced_budget"]
        assert not record["git"]["modified"] and len(record["history"]) == 8
        test = record["test"]["last"]
        assert test["count"] == 10000 and test["accuracy"] == test["correct"] / test["count"]
        assert test["correct"] == record["history"][-1]["test_correct"]
    assert len({record["identity"] for record in records}) == 1
    assert len({record["data"]["train_hash"] for record in records}) == 1


def test_a_changed_record_fails_the_check(tmp_path):
    for part in ("README.md", "scripts", "results"):
        source = ROOT / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / part)
    path = tmp_path / "results" / "records" / "mnist_cnn" / "fc-s0.json"
    record = json.loads(path.read_text())
    record["test"]["last"]["accuracy"] -= 0.01
    path.write_text(json.dumps(record))
    script = tmp_path / "scripts" / SCRIPT.name
    assert subprocess.run([sys.executable, str(script), "--check"]).returncode == 1


def test_the_code_of_the_readme_runs():
    section = (ROOT / "README.md").read_text().split("## In your own code\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert tuple(names["logits"].shape) == (2, 10)
