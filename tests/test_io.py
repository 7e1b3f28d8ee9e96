"""Files are there whole or not at all."""

import json
import os

import pytest

from spinal_repro import io
from spinal_repro.io import (
    read_json,
    remove_partial_files,
    write_atomic,
    write_json,
)


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


def test_a_new_name_is_flushed_once_it_is_there(tmp_path, monkeypatch):
    path, flushed = tmp_path / "file", []
    monkeypatch.setattr(
        io, "sync_folder", lambda folder: flushed.append((folder, path.read_text()))
    )
    for text in ("old", "new"):
        write_atomic(path, text)
        assert flushed.pop() == (tmp_path, text)


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


def test_an_error_names_the_file(tmp_path):
    with pytest.raises(OSError, match="nowhere/file"):
        write_atomic(tmp_path / "nowhere" / "file", "x")


def test_leftovers_are_cleaned(tmp_path):
    write_atomic(tmp_path / "file", "x")
    (tmp_path / ".file.1.partial").write_text("half")
    remove_partial_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_no_file_stays_what_it_is(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "folder", tmp_path / "pipe"):
        with pytest.raises(OSError, match=f"not a regular file.*{path.name}"):
            write_atomic(path, "x")
        assert path.exists() and not path.is_file()
    assert len(list(tmp_path.iterdir())) == 2
