"""Files are there whole or not at all."""

import json
import os

import pytest

from spinal_repro.files import read_json, write_atomic, write_json


def test_content_is_written_and_replaced(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "first, and longer")
    write_atomic(path, b"second\x00")
    assert path.read_bytes() == b"second\x00"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8(tmp_path):
    write_atomic(tmp_path / "file", "95 % ± 1")
    assert (tmp_path / "file").read_bytes() == "95 % ± 1".encode()


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, moment):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail(*_arguments):
        raise OSError("disk full")

    if moment == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_name_never_shows_part_of_the_content(tmp_path, monkeypatch):
    """When data are flushed to disk, the name still belongs to the old content."""
    path, seen = tmp_path / "file", []
    write_atomic(path, "old")
    flush = os.fsync

    def watch(descriptor):
        seen.append(path.read_text())
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_atomic(path, "new")
    assert seen[0] == "old"
    assert set(seen[1:]) <= {"new"}


def test_json_round_trip(tmp_path):
    value = {"a": [1, 2.5, None, True], "b": {"c": "±"}, "tiny": 1e-300, "third": 1 / 3}
    write_json(tmp_path / "file", value)
    assert read_json(tmp_path / "file") == value


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_json_refuses_what_is_no_number(tmp_path, bad):
    path = tmp_path / "file"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": bad})
    assert json.loads(path.read_text()) == {"a": 1}
