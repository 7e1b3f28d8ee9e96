"""One process at a time, also where nobody has locks."""

import os
import subprocess
import sys
import threading

import pytest

from spinal_repro.io import LOCK, NO_LOCKS, BusyError, exclusive_lock, is_locked, run_lock

HOLD = (
    "import sys\n"
    "from pathlib import Path\n"
    "from spinal_repro.io import alone\n"
    "with alone(Path(sys.argv[1]), 'at work'):\n"
    "    print('in', flush=True)\n"
    "    sys.stdin.readline()\n"
)


def start(path):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_second_says_that_it_waits_and_comes_when_the_first_is_killed(tmp_path):
    first, second = start(tmp_path / "lock"), None
    try:
        assert first.stdout.readline() == "in\n"
        second = start(tmp_path / "lock")
        assert second.stderr.readline() == "another process is at work; waiting for it\n"
        first.kill()
        assert second.stdout.readline() == "in\n"
        assert second.communicate("\n") == ("", "") and second.returncode == 0
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.wait()


@pytest.mark.parametrize("number", NO_LOCKS)
def test_a_file_of_a_killed_process_holds_nobody_up_where_there_are_no_locks(
    tmp_path, monkeypatch, number
):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_given):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "lock").write_text("0\nelsewhere\n")
    with exclusive_lock(tmp_path / "lock", "at work") as held:
        assert not held and (tmp_path / "lock").read_text() == "0\nelsewhere\n"
    with run_lock(tmp_path):
        assert not is_locked(tmp_path)  # nobody can tell


def test_a_run_that_is_trained_is_locked(tmp_path):
    assert not is_locked(tmp_path)
    with run_lock(tmp_path / "new"):
        assert is_locked(tmp_path / "new")
        with pytest.raises(BusyError), run_lock(tmp_path / "new"):
            pass
    assert not is_locked(tmp_path / "new")


def test_asking_whether_a_run_is_locked_does_not_stop_it_from_starting(tmp_path):
    """`is_locked` takes the lock for a moment."""
    (tmp_path / LOCK).touch()
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            is_locked(tmp_path)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(100):
            with run_lock(tmp_path):
                pass
    finally:
        stop.set()
        asking.join()
