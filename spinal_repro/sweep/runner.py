"""Runs the jobs of a sweep, each in its own process with its share of the cores and GPUs."""

import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from spinal_repro.config.schema import RuntimeConfig
from spinal_repro.errors import EXIT_BUSY, EXIT_INTERRUPTED, error_message
from spinal_repro.records.store import RECORD

OUTPUT = "output.txt"  # standard output and error of a job, in its run folder
POLL = 0.5  # seconds; two signals within this time count as one
GRACE = 30.0  # seconds between SIGTERM and SIGKILL for a job beyond its time limit
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
STATES = {0: "done", EXIT_BUSY: "busy", EXIT_INTERRUPTED: "interrupted"}


def share(
    count: int, runtime: RuntimeConfig, *, cores: int, devices: tuple[str, ...] = ()
) -> tuple[int, list[str | None]]:
    """Divide the machine among ``count`` jobs, as ``runtime.jobs`` and ``runtime.threads`` say.

    Finished jobs count too: a repeated command must give a job the same number of threads, which
    affects the rounding of its results.

    Returns the CPU threads of each job, and for each concurrent job its ``CUDA_VISIBLE_DEVICES``.
    """
    fitting = len(devices) or cores // (runtime.threads or 1)
    at_once = runtime.jobs if isinstance(runtime.jobs, int) else fitting
    at_once = max(1, min(count, at_once))
    slots = [devices[slot % len(devices)] if devices else None for slot in range(at_once)]
    return runtime.threads or max(1, cores // at_once), slots


def usable_cores() -> int:
    """Cores that this process may use: its affinity (SLURM, taskset), else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_devices(count: int, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Names for ``CUDA_VISIBLE_DEVICES`` of the ``count`` GPUs that PyTorch finds."""
    named = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return tuple(([name for name in named if name] or [str(i) for i in range(count)])[:count])


@dataclass
class Job:
    """One run of a sweep."""

    name: str
    folder: Path
    command: Sequence[str]
    minutes: float | None = None  # time limit
    state: str = "waiting"  # running, one of STATES, timed out, killed or failed
    message: str = ""  # the result, or why there is none
    slot: str | None = None  # while it is running, as its process
    deadline: float = math.inf
    timed_out: bool = False
    process: subprocess.Popen[bytes] = field(init=False, repr=False)


def run_sweep(
    jobs: Sequence[Job], threads: int, slots: Sequence[str | None], on_end: Callable[[Job], None]
) -> None:
    """Run jobs, which are updated in place; call ``on_end`` with each job that ends.

    After a signal the running jobs are stopped and no more are started; a second signal kills them.
    """
    waiting, free = list(jobs), list(slots)
    running: list[Job] = []
    received: list[int] = []
    stopping = False
    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup
    before = {n: signal.signal(n, lambda number, frame: received.append(number)) for n in handled}
    try:
        while running or (waiting and not stopping):
            while waiting and free and not received and not stopping:
                job = waiting.pop(0)
                try:
                    _start(job, free[0], threads)
                except OSError as error:
                    job.state, job.message = "failed", error_message(error)
                    on_end(job)
                else:
                    running.append(job)
                    free.pop(0)
            time.sleep(POLL)
            if received:
                received.clear()
                for job in running:
                    job.process.kill() if stopping else job.process.terminate()
                stopping = True
            for job in list(running):
                if job.process.poll() is None:
                    _enforce_limit(job)
                    continue
                running.remove(job)
                free.append(job.slot)
                _set_result(job, stopping)
                on_end(job)
    finally:
        for job in running:  # after an error above
            job.process.terminate()
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(job: Job, slot: str | None, threads: int) -> None:
    """Start a job in its own process group, which does not receive Ctrl-C of the terminal."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if slot is not None:
        environment["CUDA_VISIBLE_DEVICES"] = slot
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / OUTPUT).open("ab") as output:
        job.process = subprocess.Popen(
            job.command, env=environment, process_group=0,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    job.state, job.slot = "running", slot
    job.deadline = time.monotonic() + 60 * (job.minutes or math.inf)


def _enforce_limit(job: Job) -> None:
    """Stop a job beyond its time limit, and kill it if it does not stop."""
    if time.monotonic() > job.deadline:
        job.process.kill() if job.timed_out else job.process.terminate()
        job.timed_out, job.deadline = True, time.monotonic() + GRACE


def _set_result(job: Job, stopping: bool) -> None:
    code = job.process.returncode
    if (job.folder / RECORD).is_file():  # also after a signal that came too late
        job.state = "done"
    elif code and job.timed_out:
        job.state, job.message = "timed out", f"runtime.time_limit={job.minutes:g} minutes"
    elif code < 0:
        job.state = "interrupted" if stopping else "killed"
        job.message = f"by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL and not stopping:
            job.message += ", probably because the machine is out of memory"
    else:
        job.state = STATES.get(code, "failed")
        job.message = _last_message(job.folder, job.process.pid) or f"exit code {code}"


def _last_message(folder: Path, pid: int) -> str:
    """Message of a process in its run's status, else the last line that it printed."""
    with suppress(OSError, ValueError, KeyError):
        status = json.loads((folder / "status.json").read_text())
        if status["pid"] == pid:
            return str(status["message"])
    with suppress(OSError):
        return (folder / OUTPUT).read_text(errors="replace").strip().rpartition("\n")[2]
    return ""
