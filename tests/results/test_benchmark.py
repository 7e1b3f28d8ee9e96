"""The page on speed is made from what the benchmark measured, and from nothing else."""

import copy

import pytest

from spinal_repro.errors import UserError
from spinal_repro.results.benchmark import fill

PAGE = "Before.\n<!-- benchmark: commands -->\nold\n<!-- end -->\nAfter.\n"
MEASURED = {
    "commands": {
        "rows": [{"command": "spinal --help", "seconds": {"median": 1.5, "low": 1, "high": 2.25}}],
        "machine": {
            "device_name": "A Chip",
            "cpu_count": 2,
            "threads": 1,
            "torch": "2.9",
            "git": {"commit": "0123456789", "modified": False},
        },
        "settings": {"repeats": 7},
        "load": {"before": 0.5, "after": 1.0},
    }
}


def test_a_part_stands_between_its_markers_with_its_machine():
    page = fill(PAGE, MEASURED)
    assert page.startswith("Before.\n<!-- benchmark: commands -->\n")
    assert page.endswith("\n<!-- end -->\nAfter.\n") and "old" not in page
    assert "| spinal --help | 1.50 (1.00 to 2.25) |" in page
    assert "A Chip, 2 cores, 1 threads, PyTorch 2.9, commit 01234567; medians of 7" in page
    assert fill(page, MEASURED) == page


def test_what_was_not_measured_says_so():
    assert "Not measured yet." in fill(PAGE, {})


def test_an_unknown_part_and_broken_rows_are_refused():
    with pytest.raises(UserError, match="commands"):
        fill(PAGE.replace("commands", "comands"), MEASURED)
    broken = copy.deepcopy(MEASURED)
    broken["commands"]["rows"][0]["seconds"] = 3.0
    with pytest.raises(UserError, match=r"benchmark\.py --parts commands"):
        fill(PAGE, broken)
