"""The table of promises names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "promises.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:tests|scripts)/[\w/]+\.py(?:::\w+)?)`", TEXT)))


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_is_named_exists(name):
    path, _, function = name.partition("::")
    source = (ROOT / path).read_text()
    assert not function or f"def {function}(" in source


def test_every_promise_is_tested():
    rows = [line.split(" | ") for line in TEXT.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if row[0] not in ("| Promised", "| ---")]
    assert len(promises) > 25
    for row in promises:
        assert len(row) == 3 or row[-1].endswith("|"), row
        assert re.search(r"`(tests|scripts)/", row[1]), f"nothing tests it: {row[0]}"
