"""Files are written whole or not at all, and one process at a time has a lock."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spinal_repro import io
from spinal_repro.errors import UserError
from spinal_repro.io import is_locked, read_json, read_yaml, run_lock, write_atomic, write_json


@pytest.mark.parametrize("moment", [(os, "fsync"), (Path, "replace")], ids=str)
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, moment):
    path = tmp_path / "file"
    write_atomic(path, "old, and longer")
    write_atomic(path, "95 % ± 1")

    def fail(*_arguments):
        assert path.read_text() == "95 % ± 1"
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(*moment, fail)
        with pytest.raises(OSError, match="disk full"):
            write_atomic(path, "new")
    assert path.read_bytes() == "95 % ± 1".encode()
    write_atomic(path, b"new\x00")
    assert path.read_bytes() == b"new\x00" and list(tmp_path.iterdir()) == [path]


def test_errors_name_the_file_and_devices_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("pipe", "nowhere/file"):
        with pytest.raises(OSError, match=path):
            write_atomic(tmp_path / path, "x")
    assert not (tmp_path / "pipe").is_file()


def test_json_round_trip(tmp_path):
    path, value = tmp_path / "file", {"a": [1, 2.5, None, True], "b": {"c": "±"}, "third": 1 / 3}
    write_json(path, value)
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == value


@pytest.mark.parametrize(
    ("read", "content"),
    [(read_json, b"[-Infinity]")]
    + [(read, content) for read in (read_json, read_yaml) for content in (b"{", b"\xff\0", None)],
)
def test_an_unreadable_file_is_one_message_with_its_name(tmp_path, read, content):
    path = tmp_path / "some.file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"some\.file") as error:
        read(path)
    assert len(str(error.value).splitlines()) == 1


HOLD = """
import pathlib, sys
from spinal_repro.io import exclusive_lock
with exclusive_lock(pathlib.Path(sys.argv[1]), "decoding"):
    print("in", flush=True)
    sys.stdin.readline()
"""


def start(path):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_second_process_waits_until_the_first_is_killed(tmp_path):
    first, second = start(tmp_path / "lock"), None
    try:
        assert first.stdout.readline() == "in\n"
        second = start(tmp_path / "lock")
        assert second.stderr.readline() == "another process is decoding; waiting for it\n"
        first.kill()
        assert second.stdout.readline() == "in\n"
        assert second.communicate("\n") == ("", "") and second.returncode == 0
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.wait()


@pytest.mark.parametrize("number", io.NO_LOCKS)
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    """Work continues without a lock; an old lock file does not block it."""
    fcntl = pytest.importorskip("fcntl")

    def flock(*_given):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "lock").write_text("0\nelsewhere\n")
    with io.exclusive_lock(tmp_path / "lock", "decoding") as held:
        assert not held
    with run_lock(tmp_path):
        assert not is_locked(tmp_path)  # unknown


def test_a_run_in_training_is_locked(tmp_path):
    folder = tmp_path / "new"
    assert not is_locked(folder)
    with run_lock(folder):
        assert is_locked(folder)
        with pytest.raises(io.BusyError), run_lock(folder):
            pass
    assert not is_locked(folder)
    (folder / ".last.pt.123.partial").write_bytes(b"of a killed process")
    with run_lock(folder):
        assert [path.name for path in folder.iterdir()] == [io.LOCK]
