"""Whole sweeps whose processes are told to stop, or are killed, by others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spinal_repro.errors import EXIT_INTERRUPTED
from spinal_repro.files import read_json
from spinal_repro.records import describe, is_alive, run_folders

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")
COMMAND = (
    "-m", "dataset=digits", "model=flatten", "seed=0,1,2", "data.limit=96", "recipe.epochs=100000",
    "recipe.batch_size=8", "runtime.device=cpu", "runtime.jobs=2", "runtime.threads=1",
)  # fmt: skip
LONGEST = 900.0  # seconds that a busy machine may take for a step


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + LONGEST
    while not until():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def statuses(place: Path) -> list[dict]:
    return [read_json(folder / "status.json") for folder in run_folders(place / "runs")]


def at_work(place: Path) -> list[dict]:
    """What says that it is running, once it has saved an epoch."""
    running = [status for status in statuses(place) if status["state"] == "running"]
    return [status for status in running if int(status["epochs"].split("/")[0] or 0) > 0]


@pytest.fixture
def sweep(tmp_path) -> Iterator[subprocess.Popen[str]]:
    """Three jobs, of which two are at work, in a group of processes of their own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPINAL_", "HYDRA_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "spinal_repro.cli.train", *COMMAND],
        cwd=tmp_path, env={**kept, "OMP_NUM_THREADS": "1"}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait(lambda: len(at_work(tmp_path)) == 2)
        yield process
    finally:
        for status in at_work(tmp_path):
            if is_alive(status):
                os.kill(status["pid"], signal.SIGKILL)
        process.kill()
        process.communicate()


def check_saved(folders: list[Path]) -> None:
    """Jobs have saved and said so, and are gone."""
    for folder in folders:
        assert describe(folder)["state"] == "interrupted"
        assert (folder / "last.pt").is_file()
        assert not is_alive(read_json(folder / "status.json"))


def begun(place: Path) -> list[Path]:
    return [folder for folder in run_folders(place / "runs") if (folder / "last.pt").is_file()]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_to_the_whole_group(tmp_path, sweep, name):
    """As timeout and scancel send it: the process that forks jobs has it, too."""
    os.killpg(sweep.pid, getattr(signal, name))
    out, err = sweep.communicate(timeout=LONGEST)
    assert sweep.returncode == EXIT_INTERRUPTED, out + err
    assert "2 interrupted, 1 waiting" in out and "failed" not in out + err
    assert len(begun(tmp_path)) == 2
    check_saved(begun(tmp_path))
    for folder in begun(tmp_path):
        assert "stopped after" in read_json(folder / "status.json")["message"]


def test_a_killed_parent(tmp_path, sweep):
    """Its jobs notice, save and stop."""
    jobs = at_work(tmp_path)
    sweep.kill()
    wait(lambda: not any(is_alive(job) for job in jobs))
    folders = begun(tmp_path)
    assert len(folders) == 2
    for folder in folders:
        status = read_json(folder / "status.json")
        assert status["state"] == "interrupted" and "stopped after" in status["message"]


def forkserver_of(parent: int) -> int:
    """The process that forks the jobs."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            above = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if (
                above == parent
                and b"multiprocessing.forkserver" in (place / "cmdline").read_bytes()
            ):
                return int(place.name)
        except OSError:
            continue
    raise AssertionError(f"process {parent} has no server")


def test_a_killed_server_of_processes(tmp_path, sweep):
    """Its jobs are asked to stop and have stopped before others take their place."""
    jobs = at_work(tmp_path)
    os.kill(forkserver_of(sweep.pid), signal.SIGKILL)

    def third_begins() -> bool:
        assert sum(is_alive(status) for status in at_work(tmp_path)) <= 2
        return len(begun(tmp_path)) == 3

    wait(third_begins)
    wait(lambda: not any(is_alive(job) for job in jobs))
    os.killpg(sweep.pid, signal.SIGTERM)
    out, err = sweep.communicate(timeout=LONGEST)
    assert sweep.returncode == EXIT_INTERRUPTED, out + err
    assert out.count("the process that starts jobs was ended; the same command continues") == 2
    assert "3 interrupted, 0 waiting" in out
    check_saved(begun(tmp_path))
