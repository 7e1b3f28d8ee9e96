"""The parent of a sweep, with jobs that do what jobs should not."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from spinal_repro.config import compose
from spinal_repro.files import read_json, write_json
from spinal_repro.records import describe, write_status
from spinal_repro.sweep import supervisor
from spinal_repro.sweep.jobs import Job
from spinal_repro.sweep.shares import Shares
from spinal_repro.sweep.supervisor import supervise
from spinal_repro.sweep.worker import keep_to_itself

# What a job does is the name of its folder. Importable by the process of a job.


def misbehave(config, folder, threads, device, answer):
    keep_to_itself()
    if folder.name == "well":
        answer.send({"state": "done", "accuracy": 0.5, "summary": f"{threads} threads, {device}"})
    elif folder.name == "exit":
        os._exit(3)
    elif folder.name == "file":
        shutil.rmtree(folder)
        folder.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    elif folder.name.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif folder.name == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (folder / "deaf").touch()
        time.sleep(60)
    else:
        (folder / "began").touch()
        time.sleep(60)


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "work", misbehave)
    # no torch is needed here: a plain new process a job
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(supervisor, "start_context", lambda: context)

    def make(name: str, minutes: float | None = None) -> Job:
        limit = [] if minutes is None else [f"runtime.time_limit={minutes}"]
        folder = tmp_path / "cell" / "heldout-1" / name
        return Job(name, compose(limit), folder)

    return make


def run(jobs: list[Job], *slots: str | None) -> bool:
    ended: list[str] = []
    whole = supervise(jobs, Shares(3, slots or (None, None)), lambda job: ended.append(job.what))
    assert sorted(ended) == sorted(job.what for job in jobs if job.state != "waiting")
    return whole


def status(job: Job) -> dict:
    assert job.folder is not None
    return read_json(job.folder / "status.json")


def test_each_end_is_told_from_the_others(job):
    jobs = [job("exit"), job("kill"), job("slow", minutes=0.02), job("well")]
    assert run(jobs)
    assert [j.state for j in jobs] == ["failed", "killed", "timed out", "done"]
    assert "code 3" in jobs[0].message
    assert "SIGKILL" in jobs[1].message and "memory" in jobs[1].message
    assert "time_limit=0.02" in jobs[2].message
    assert [status(j)["state"] for j in jobs[:3]] == ["failed", "killed", "timed out"]
    assert jobs[3].accuracy == 0.5


def test_a_job_that_does_not_listen_is_ended(job, monkeypatch):
    monkeypatch.setattr(supervisor, "GRACE", 0.5)
    deaf = job("deaf", minutes=0.01)
    assert run([deaf])
    assert (deaf.state, status(deaf)["state"]) == ("timed out", "timed out")


def test_a_folder_that_cannot_be_written_stops_no_other_job(job):
    """A file lies there before the job begins, or before it ends."""
    jobs = [job("taken"), job("file"), job("exit"), job("well")]
    assert jobs[0].folder is not None
    jobs[0].folder.parent.mkdir(parents=True)
    jobs[0].folder.touch()
    assert run(jobs, None)
    assert [j.state for j in jobs] == ["failed", "killed", "failed", "done"]
    for each in jobs[:2]:
        assert f"the run folder {each.folder} cannot be written" in each.message
    assert "SIGKILL" in jobs[1].message


def test_a_process_that_cannot_be_started_stops_no_other_job(job, monkeypatch):
    contexts = iter([supervisor.start_context()])

    def start_context():
        try:
            return next(contexts)
        except StopIteration:
            raise BlockingIOError("no process left") from None

    monkeypatch.setattr(supervisor, "start_context", start_context)
    jobs = [job("well"), job("well2")]
    assert run(jobs)
    assert [j.state for j in jobs] == ["done", "failed"]
    assert "no process left" in jobs[1].message


def test_what_a_job_is_handed(job):
    jobs = [job("well")]
    assert run(jobs, "GPU-7")
    assert jobs[0].message == "3 threads, GPU-7"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_stops_what_runs_and_keeps_the_rest_waiting(job, name):
    before = signal.getsignal(getattr(signal, name))
    jobs = [job("slow"), job("slow2"), job("slow3")]

    def tell() -> None:
        for job in jobs[:2]:
            while not (job.folder / "began").exists():
                time.sleep(0.05)
        os.kill(os.getpid(), getattr(signal, name))

    told = threading.Thread(target=tell)
    told.start()
    assert not run(jobs)
    told.join()
    assert [j.state for j in jobs] == ["interrupted", "interrupted", "waiting"]
    assert [status(j)["state"] for j in jobs] == ["interrupted", "interrupted", "waiting"]
    assert signal.getsignal(getattr(signal, name)) is before


def test_a_second_signal_ends_what_does_not_stop(job, monkeypatch):
    monkeypatch.setattr(supervisor, "AT_ONCE", 0.5)
    deaf = job("deaf")

    def insist() -> None:
        assert deaf.folder is not None
        while not (deaf.folder / "deaf").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        first.wait()
        time.sleep(0.8)
        os.kill(os.getpid(), signal.SIGTERM)

    stop, first = supervisor._stop, threading.Event()

    def stopped(*given, **named) -> None:
        stop(*given, **named)
        first.set()

    monkeypatch.setattr(supervisor, "_stop", stopped)
    thread = threading.Thread(target=insist)
    thread.start()
    assert not run([deaf])
    thread.join()
    assert deaf.state == "interrupted"


def test_a_run_in_other_hands_keeps_its_status(job):
    busy = job("kill2")
    assert busy.folder is not None
    busy.folder.mkdir(parents=True)
    write_status(busy.folder, "running", epochs="3/8")
    theirs = {**status(busy), "pid": os.getppid(), "started": None}
    write_json(busy.folder / "status.json", theirs)
    assert run([busy])
    assert busy.state == "killed"
    assert status(busy) == theirs
    assert describe(busy.folder)["epochs"] == "3/8"


@pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")
def test_a_long_name_of_the_folder_for_temporary_files(tmp_path):
    """As batch systems have it; the names of sockets in it would be too long."""
    place = tmp_path / ("job" * 40)
    place.mkdir()
    code = (
        "from spinal_repro.sweep.processes import start_context\n"
        "process = start_context().Process(target=print, args=('in',))\n"
        "process.start()\n"
        "process.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(place)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("in\n", 0), done.stderr
