"""Print the README's table from the committed records: MNIST CNN, both heads, beside the paper.

python scripts/mnist_cnn_table.py            # the table
python scripts/mnist_cnn_table.py --check    # exit 1 unless the README holds exactly this table
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from spinal_repro.records import read_record

ROOT = Path(__file__).parent.parent
# The paper's table (one value a head) and epoch 8 of the supplement's curve (mean over runs).
PUBLISHED = {"fc": (98.17, 98.17), "spinal": (98.44, 98.35)}
TITLES = {"fc": "FC 320-50-10", "spinal": "Spinal, 6 layers of 8"}


def table(folder: Path) -> str:
    """The Markdown table of the records below a folder."""
    records: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        record = read_record(path)
        records.setdefault(record["config"]["head"]["name"], []).append(record)
    lines = [
        "| head | paper | supplement, epoch 8 | ours, epoch 8: mean | SD | n | "
        "head parameters | head multiplications |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for head, (paper, supplement) in PUBLISHED.items():
        runs = records[head]
        if any(run["reduced_budget"] for run in runs):
            raise SystemExit("a record with a reduced budget stands among the full ones")
        last = [100 * run["test"]["last"]["accuracy"] for run in runs]
        counts = runs[0]["counts"]
        lines.append(
            f"| {TITLES[head]} | {paper} | {supplement} | **{statistics.mean(last):.2f}** | "
            f"{statistics.stdev(last):.2f} | {len(last)} | {counts['head_parameters']:,} | "
            f"{counts['head_multiplications']:,} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    text = table(ROOT / "results" / "records" / "mnist_cnn")
    if parser.parse_args().check:
        return 0 if text in (ROOT / "README.md").read_text() else 1
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
