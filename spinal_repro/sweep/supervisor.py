"""The parent of a sweep: starts its jobs, watches them, and notes how each of them ended.

It imports no torch and touches no device. Jobs are forked from a server that has imported torch
once and has computed nothing, so that its threads and devices are untouched.
"""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from spinal_repro.errors import UserError
from spinal_repro.files import make_folder
from spinal_repro.records import describe, write_status
from spinal_repro.schema import Config
from spinal_repro.sweep.shares import Shares, share, usable_cores, visible_devices
from spinal_repro.sweep.worker import PRELOADED, Found, in_other_hands, resolve_all, work
from spinal_repro.training.stop import Listener

GRACE = 30.0  # seconds between a time limit's request to stop and its end
LOOK_EVERY = 0.5  # seconds between looks at the clock and at signals


@dataclass
class Job:
    """One run of a sweep.

    Attributes:
        what: For people.
        config: As composed; None where it is refused.
        folder: Of the run; None as long as it is not known.
        state: As in ``status.json``.
        message: Why it did not finish, in one line; or what came out.
        accuracy: On the selecting split, at the selected epoch.
    """

    what: str
    config: Config | None = None
    folder: Path | None = None
    state: str = "waiting"
    message: str = ""
    accuracy: float | None = None

    @property
    def can_go_on(self) -> bool:
        """Whether nothing is wrong but that the sweep was stopped."""
        return self.state in ("waiting", "interrupted")

    @property
    def why_not(self) -> str:
        """Why it is not done; empty if it is."""
        if self.state == "done":
            return ""
        return self.message if self.state == "failed" else f"{self.state} {self.message}"


@dataclass
class _Running:
    """A job at work."""

    job: Job
    process: BaseProcess
    answer: connection.Connection
    slot: str | None
    deadline: float
    overdue: bool = False
    told: dict[str, Any] = field(default_factory=dict)


def start_context() -> Any:
    """How processes are started: forked from a clean server, where forking is safe."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *PRELOADED])
    return context


def resolve(jobs: Sequence[Job]) -> tuple[Shares, list[Job]]:
    """Find each job's folder, all before the first one starts.

    Jobs that are refused or finished say so afterwards; those that mean the same run (a cell and
    the same thing composed by hand) are one.

    Returns:
        What each job gets of the machine, and the jobs that are left to do.
    """
    context = start_context()
    wanted = [job for job in jobs if job.config is not None]
    if not wanted:
        return Shares(1, (None,)), []
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=resolve_all, args=([job.config for job in wanted], send))
    process.start()
    send.close()
    try:
        answer: tuple[list[Found], int] = receive.recv()
    except EOFError:
        process.join()
        raise UserError(
            f"the process that looks at the {len(wanted)} jobs ended with code "
            f"{process.exitcode}; see above"
        ) from None
    process.join()
    found, num_devices = answer
    left: dict[Path, Job] = {}
    for job, about in zip(wanted, found, strict=True):
        job.folder = about.folder
        if about.folder is None:
            job.state, job.message = "failed", about.refusal
        elif about.done:
            job.state = "done"
        elif about.folder in left:
            job.state, job.message = "same", f"the same run as {left[about.folder].what}"
        else:
            left[about.folder] = job
    on_cuda = any(
        about.device == "cuda" and job.config and ":" not in job.config.runtime.device
        for job, about in zip(wanted, found, strict=True)
    )
    devices = visible_devices(num_devices) if on_cuda else ()
    runs = len({about.folder for about in found if about.folder is not None})
    assert wanted[0].config is not None
    shares = share(runs, wanted[0].config.runtime, cores=usable_cores(), devices=devices)
    return shares, list(left.values())


def supervise(jobs: Sequence[Job], shares: Shares, on_end: Callable[[Job], None]) -> bool:
    """Do jobs, some at a time, each in a process of its own, until all have ended.

    Args:
        jobs: Updated in place.
        shares: What each gets.
        on_end: Called with each job that has ended.

    Returns:
        Whether all were started: False after a signal; the rest stay waiting.
    """
    context = start_context()
    waiting, free = list(jobs), list(shares.slots)
    running: list[_Running] = []
    for job in waiting:
        _note(job)
    with _Asked() as asked:
        while (waiting and not asked.times) or running:
            while waiting and free and not asked.times:
                running.append(_start(context, waiting.pop(0), free.pop(0), shares.threads))
            sentinels = [one.process.sentinel for one in running]
            connection.wait(sentinels, timeout=LOOK_EVERY)
            if asked.is_new():
                _stop(running, at_once=asked.times > 1)
            for one in list(running):
                _hear(one)
                if not one.process.is_alive():
                    _end(one, stopped=asked.times > 0)
                    running.remove(one)
                    free.append(one.slot)
                    on_end(one.job)
                elif time.monotonic() > one.deadline:
                    _stop([one], at_once=one.overdue)
                    one.overdue, one.deadline = True, time.monotonic() + GRACE
        return not asked.times


class _Asked(Listener):
    """Context that counts signals which ask the sweep to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.times = self._seen = 0
        self._last = 0.0

    def is_new(self) -> bool:
        """Whether there was another signal since the last look."""
        new, self._seen = self.times > self._seen, self.times
        return new

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._last > LOOK_EVERY:  # launchers send a signal twice
            self.times += 1
        self._last = time.monotonic()


def _start(context: Any, job: Job, slot: str | None, threads: int) -> _Running:
    """Start a job's process."""
    assert job.config is not None and job.folder is not None
    receive, send = context.Pipe(duplex=False)
    arguments = (job.config, job.folder, threads, slot, send)
    process = context.Process(target=work, args=arguments, name=job.what)
    process.start()
    send.close()
    job.state = "running"
    minutes = job.config.runtime.time_limit
    limit = float("inf") if minutes is None else 60 * minutes
    return _Running(job, process, receive, slot, time.monotonic() + limit)


def _stop(running: Sequence[_Running], at_once: bool) -> None:
    """Ask jobs to save and stop, or end them."""
    for one in running:
        one.process.kill() if at_once else one.process.terminate()


def _hear(one: _Running) -> None:
    """Take what a job says of its end, as long as it is there to say it."""
    try:
        if not one.told and one.answer.poll():
            one.told = one.answer.recv()
    except (EOFError, OSError):
        pass


def _end(one: _Running, stopped: bool) -> None:
    """Say how a job ended, to its status where it could not do so itself."""
    job, pid, code = one.job, one.process.pid, one.process.exitcode
    _hear(one)
    one.answer.close()
    told: dict[str, Any] = one.told or _from_code(code)
    if told["state"] != "done":
        if one.overdue:
            assert job.config is not None
            minutes = job.config.runtime.time_limit
            told = {"state": "timed out", "message": f"runtime.time_limit={minutes} minutes"}
        elif stopped and told["state"] == "killed":
            told = {"state": "interrupted", "message": told["message"]}
    job.state, job.message = told["state"], told.get("message", told.get("summary", ""))
    job.accuracy = told.get("accuracy")
    if not one.told or one.overdue:
        _note(job, pid)
    one.process.close()


def _from_code(code: int | None) -> dict[str, str]:
    """What an exit code tells of a process that told nothing itself."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        guess = "; if nobody did that, memory ran out" if name == "SIGKILL" else ""
        return {"state": "killed", "message": f"by {name}{guess}"}
    return {"state": "failed", "message": f"its process ended with code {code}, see its output.txt"}


def _note(job: Job, *pids: int | None) -> None:
    """Write a job's state into its folder, unless another process is at work there."""
    assert job.folder is not None
    if in_other_hands(job.folder, *(pid for pid in pids if pid is not None)):
        return
    try:
        make_folder(job.folder)
        message = {"message": job.message} if job.message else {}
        epochs = describe(job.folder).get("epochs", "")
        write_status(job.folder, job.state, epochs=epochs, **message)
    except OSError as error:
        raise UserError(f"the run folder {job.folder} cannot be written: {error}") from error
