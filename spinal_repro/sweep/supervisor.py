"""The parent of a sweep: starts its jobs, watches them, and notes how each of them ended.

It imports no torch and touches no device. Jobs are forked from a server that has imported torch
once and has computed nothing, so that its threads and devices are untouched.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from spinal_repro.errors import UserError
from spinal_repro.records import is_alive
from spinal_repro.sweep.jobs import Job, note, waiting_jobs
from spinal_repro.sweep.processes import start_context
from spinal_repro.sweep.shares import Shares, share, usable_cores, visible_devices
from spinal_repro.sweep.worker import Found, resolve_all, work
from spinal_repro.training.stop import AT_ONCE, Listener, heard

GRACE = 30.0  # seconds between this program's request to stop and the end of a job
LOOK_EVERY = 0.5  # seconds between looks at the clock and at signals
NOT_TOLD = 255  # what multiprocessing says where the server ended before it could tell a code


@dataclass
class _Running:
    """A job at work.

    Attributes:
        deadline: When it is asked to stop, and then when it is ended.
        verdict: As which it ends unless it is done, once it was asked to stop for itself alone.
        told: What it said of its end.
        silent: Whether its end of ``answer`` is closed, as the end of a process does it.
    """

    job: Job
    process: BaseProcess
    answer: connection.Connection
    slot: str | None
    deadline: float
    verdict: dict[str, str] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    silent: bool = False

    @property
    def orphaned(self) -> bool:
        """Whether it is at work though the server that forked it, and would tell, is gone."""
        lost = not self.process.is_alive() and self.process.exitcode == NOT_TOLD
        return lost and not self.silent and is_alive({"pid": self.process.pid})


def resolve(jobs: Sequence[Job]) -> tuple[Shares, list[Job]]:
    """Find each job's folder, all before the first one starts.

    Jobs that are refused or finished say so afterwards; those that mean the same run (a cell and
    the same thing composed by hand) are one.

    Returns:
        What each job gets of the machine, and the jobs that are left to do.
    """
    wanted = [job for job in jobs if job.config is not None]
    if not wanted:
        return Shares(1, (None,)), []
    context = start_context()
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
    except BaseException:  # nobody will ask for it
        process.kill()
        raise
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
    waiting, free = waiting_jobs(jobs, on_end), list(shares.slots)
    running: list[_Running] = []
    heard()
    with _Asked() as asked:
        try:
            while (waiting and not asked.times) or running:
                while waiting and free and not asked.times:
                    _start(waiting.pop(0), free, shares.threads, running, on_end)
                ends = [o.answer if o.orphaned else o.process.sentinel for o in running]
                connection.wait(ends, timeout=LOOK_EVERY)
                if asked.is_new():
                    _stop(running, at_once=asked.times > 1)
                for one in list(running):
                    _hear(one)
                    if not one.process.is_alive() and not one.orphaned:
                        running.remove(one)
                        free.append(one.slot)
                        _end(one, stopped=asked.times > 0)
                        on_end(one.job)
                    else:
                        _limit(one)
        finally:
            _stop(running, at_once=False)  # none is left, unless nobody can be told any more
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
        if not self.times or time.monotonic() - self._last > AT_ONCE:
            self.times, self._last = self.times + 1, time.monotonic()


def _start(
    job: Job,
    free: list[str | None],
    threads: int,
    running: list[_Running],
    on_end: Callable[[Job], None],
) -> None:
    """Start a job's process on a free slot; one that cannot be started has failed."""
    try:
        running.append(_started(job, free[0], threads))
        free.pop(0)
    except (OSError, EOFError) as error:  # no memory, no process left, the server ended just now
        job.state, job.message = "failed", f"its process could not be started: {error!r}"
        on_end(job)


def _started(job: Job, slot: str | None, threads: int) -> _Running:
    """A job with a process of its own.

    Raises:
        OSError: where the machine has none left.
        EOFError: where the server of processes ends meanwhile.
    """
    assert job.config is not None and job.folder is not None
    context = start_context()
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
        if one.orphaned:  # multiprocessing takes it for ended
            assert one.process.pid is not None
            with suppress(ProcessLookupError):
                os.kill(one.process.pid, signal.SIGKILL if at_once else signal.SIGTERM)
        elif at_once:
            one.process.kill()
        else:
            one.process.terminate()


def _limit(one: _Running) -> None:
    """Ask a job to stop that is out of time or watched by nobody, and end it if it does not."""
    if one.orphaned and not one.verdict:
        message = "the process that starts jobs was ended; the same command continues"
        verdict = {"state": "interrupted", "message": message}
    elif time.monotonic() > one.deadline:
        assert one.job.config is not None
        minutes = one.job.config.runtime.time_limit
        verdict = {"state": "timed out", "message": f"runtime.time_limit={minutes} minutes"}
    else:
        return
    _stop([one], at_once=bool(one.verdict))
    one.verdict, one.deadline = one.verdict or verdict, time.monotonic() + GRACE


def _hear(one: _Running) -> None:
    """Take what a job says of its end, as long as it is there to say it."""
    try:
        while one.answer.poll():
            one.told = one.answer.recv()
    except (EOFError, OSError):
        one.silent = True


def _end(one: _Running, stopped: bool) -> None:
    """Say how a job ended, to its status where it could not do so itself."""
    job, pid, code = one.job, one.process.pid, one.process.exitcode
    _hear(one)
    one.answer.close()
    told: dict[str, Any] = one.told or _from_code(code)
    if told["state"] != "done":
        if one.verdict:
            told = one.verdict
        elif stopped and told["state"] == "killed":
            told = {"state": "interrupted", "message": told["message"]}
    job.state, job.message = told["state"], told.get("message", told.get("summary", ""))
    job.accuracy = told.get("accuracy")
    if not one.told or one.verdict:
        try:
            note(job, pid)
        except UserError as error:
            job.message = f"{job.message}; {error}"
    one.process.close()


def _from_code(code: int | None) -> dict[str, str]:
    """What an exit code tells of a process that told nothing itself."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        guess = "; if nobody did that, memory ran out" if name == "SIGKILL" else ""
        return {"state": "killed", "message": f"by {name}{guess}"}
    return {"state": "failed", "message": f"its process ended with code {code}, see its output.txt"}
