"""The runner of a sweep, with jobs that are small scripts, and what each gets of the machine."""

import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spinal_repro.config.schema import RuntimeConfig
from spinal_repro.sweep import runner
from spinal_repro.sweep.runner import OUTPUT, Job, run_sweep, share, visible_devices

BEGUN = "import signal, sys, time; open('{0}/began', 'w'); time.sleep(99)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + BEGUN
SAVES = "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); " + BEGUN
AUTO = RuntimeConfig()
WELL = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ.get('CUDA_VISIBLE_DEVICES'))"


@pytest.fixture
def job(tmp_path, monkeypatch) -> Callable[..., Job]:
    monkeypatch.setattr(runner, "POLL", 0.05)

    def make(name: str, script: str, minutes: float | None = None) -> Job:
        folder = tmp_path / name
        return Job(name, folder, [sys.executable, "-c", script.format(folder)], minutes)

    return make


def run(jobs: list[Job], *slots: str | None) -> None:
    ended: list[str] = []
    run_sweep(jobs, 3, slots or (None, None), lambda job: ended.append(job.name))
    assert sorted(ended) == sorted(job.name for job in jobs if job.state != "waiting")


def test_how_each_job_ended(job):
    jobs = [
        job("raises", "print('first line'); raise RuntimeError('out of luck')"),
        job("killed", "import os; os.kill(os.getpid(), 9)"),
        job("slow", SAVES, minutes=0.02),
        job("busy", "import sys; print('process 7 trains this run'); sys.exit(69)"),
        job("silent", "import sys; sys.exit(3)"),
        job("done", WELL),
        job("late", "import os; open('{0}/record.json', 'w').close(); os.kill(os.getpid(), 15)"),
    ]
    run(jobs)
    assert [(j.state, j.message) for j in jobs] == [
        ("failed", "RuntimeError: out of luck"),
        ("killed", "by SIGKILL, probably because the machine is out of memory"),
        ("timed out", "runtime.time_limit=0.02 minutes"),
        ("busy", "process 7 trains this run"),
        ("failed", "exit code 3"),
        ("done", "3 None"),
        ("done", jobs[-1].message),  # however its process ended: its record is written
    ]
    assert "first line" in (jobs[0].folder / OUTPUT).read_text()


def test_the_message_is_that_of_the_status_of_the_same_process(job):
    write = "import json, os, sys; from pathlib import Path; Path('{0}/status.json').write_text("
    ours, others = "os.getpid()", "1"
    scripts = {
        pid: write + f"json.dumps(dict(pid={pid}, message='of {pid}'))); sys.exit('printed')"
        for pid in (ours, others)
    }
    jobs = [job("own", scripts[ours]), job("other", scripts[others])]
    run(jobs)
    assert [j.message for j in jobs] == ["of os.getpid()", "printed"]


def test_a_job_that_ignores_its_time_limit_is_killed(job, monkeypatch):
    monkeypatch.setattr(runner, "GRACE", 0.2)
    deaf = job("deaf", DEAF, minutes=0.01)
    run([deaf])
    assert deaf.state == "timed out"


def test_a_folder_that_cannot_be_written_stops_no_other_job(job):
    jobs = [job("taken", WELL), job("well", WELL)]
    jobs[0].folder.touch()
    run(jobs, None)
    assert [j.state for j in jobs] == ["failed", "done"]
    assert str(jobs[0].folder) in jobs[0].message


def test_jobs_take_turns_on_devices(job):
    jobs = [job(str(n), WELL + "; import time; time.sleep(0.5)") for n in range(4)]
    run(jobs, "GPU-7", "GPU-8")
    assert sorted(j.message for j in jobs) == ["3 GPU-7"] * 2 + ["3 GPU-8"] * 2


def signal_when(began: list[Path], *numbers: signal.Signals) -> threading.Thread:
    """Send this process signals, once jobs have begun, and again after a while."""

    def send() -> None:
        end = time.monotonic() + 60
        while not all((folder / "began").exists() for folder in began) and time.monotonic() < end:
            time.sleep(0.02)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.5)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_what_runs_and_keeps_the_rest_waiting(job, number):
    before = signal.getsignal(number)
    jobs = [job(name, SAVES) for name in ("one", "two", "three")]
    thread = signal_when([jobs[0].folder, jobs[1].folder], number)
    run(jobs)
    thread.join()
    assert [j.state for j in jobs] == ["interrupted", "interrupted", "waiting"]
    assert signal.getsignal(number) is before


def test_a_second_signal_kills(job):
    deaf = job("deaf", DEAF)
    thread = signal_when([deaf.folder], signal.SIGINT, signal.SIGINT)
    run([deaf])
    thread.join()
    assert (deaf.state, deaf.message) == ("interrupted", "by SIGKILL")


@pytest.mark.parametrize("cores", [1, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 5, 1000])
def test_on_a_cpu_all_cores_work_and_none_twice(cores, count):
    threads, slots = share(count, AUTO, cores=cores)
    assert len(slots) == min(cores, count)
    assert cores - len(slots) < len(slots) * threads <= cores
    assert set(slots) == {None}


@pytest.mark.parametrize(
    ("count", "settings", "cores", "jobs", "threads"),
    [
        (9, {"threads": 4}, 8, 2, 4),
        (9, {"threads": 4}, 2, 1, 4),  # as asked, though there are two
        (9, {"jobs": 1}, 8, 1, 8),
        (9, {"jobs": 4}, 8, 4, 2),
        (9, {"jobs": 4}, 2, 4, 1),
        (3, {"jobs": 4}, 8, 3, 2),
    ],
)
def test_threads_or_jobs_that_are_asked_for(count, settings, cores, jobs, threads):
    found, slots = share(count, dataclasses.replace(AUTO, **settings), cores=cores)
    assert (len(slots), found) == (jobs, threads)


def test_each_job_is_handed_a_device_and_some_share_one():
    devices = ("0", "1", "2")
    assert share(9, AUTO, cores=8, devices=devices) == (2, ["0", "1", "2"])
    assert share(2, AUTO, cores=8, devices=devices) == (4, ["0", "1"])
    threads, slots = share(99, dataclasses.replace(AUTO, jobs=7), cores=14, devices=devices)
    assert sorted(map(slots.count, devices)) == [2, 2, 3] and threads == 2


@pytest.mark.parametrize(
    "said, names",
    [
        ({}, ("0", "1")),
        ({"CUDA_VISIBLE_DEVICES": "5, 7"}, ("5", "7")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-ab,GPU-cd"}, ("GPU-ab", "GPU-cd")),
    ],
)
def test_devices_have_the_names_that_the_machine_gave_them(said, names):
    assert visible_devices(2, said) == names
