"""A little of what ``scripts/fuzz.py`` does at length, and its own conscience."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from fuzz import Reader, fuzz
from fuzz_readers import READERS

INPUTS = {"config": 60, "archive": 100}


@pytest.mark.parametrize("name", sorted(READERS))
def test_damaged_files_are_refused_or_read_as_they_are(name, tmp_path):
    tally = fuzz(READERS[name](tmp_path), INPUTS.get(name, 150))
    assert not tally.failures, tally.failures[0]
    assert tally.refused > 0, "nothing was damaged enough"


def test_a_reader_that_guesses_is_found_out():
    """One that takes everything for right, and one that ends in an error of its own."""

    def read(data: bytes) -> bytes:
        if data[:1] != b"x":
            raise KeyError("a traceback")
        return b"x" * 100

    reader = Reader("naive", [b"x" * 100], read, lambda data, found: data == found, ())
    whys = {why for why, _ in fuzz(reader, 200).failures}
    assert "read as something else" in whys
    assert any(why.startswith("KeyError") for why in whys)
