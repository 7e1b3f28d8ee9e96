"""The README's table is made from whole runs, and its code runs."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "results" / "records"


def test_the_table_is_made_from_whole_runs_of_the_published_recipe():
    """Their numbers in it: see cli/test_tables.py."""
    (cells,) = re.findall(r"<!-- table: (.*) -->", (ROOT / "README.md").read_text())
    for cell in cells.split():
        records = [json.loads(p.read_text()) for p in sorted(RECORDS.glob(f"{cell}-paper-*.json"))]
        assert sorted(record["seed"] for record in records) == list(range(12))
        for record in records:
            assert record["config"]["cell"] == cell and not record["reduced_budget"]
            assert not record["git"]["modified"] and len(record["history"]) == 8
            assert record["test"]["last"]["count"] == 10_000


def test_the_code_of_the_readme_runs():
    section = (ROOT / "README.md").read_text().split("## In your own code\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert tuple(names["logits"].shape) == (2, 10)
