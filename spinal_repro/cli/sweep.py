"""Sweeps with the default launcher of ``spinal-train``: every job is a process."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from spinal_repro.cli.launch import JobError, check_all
from spinal_repro.config.validate import validate
from spinal_repro.errors import UserError
from spinal_repro.io import echo
from spinal_repro.records.record import read_record
from spinal_repro.records.store import RECORD
from spinal_repro.sweep.runner import Job, run_sweep
from spinal_repro.sweep.slots import share, usable_cores, visible_devices
from spinal_repro.training.outputs import summary
from spinal_repro.training.setup import resolved


def run_jobs(
    raws: Sequence[DictConfig], overrides: Sequence[Sequence[str]], options: Sequence[str]
) -> list[Job]:
    """Run the jobs of a sweep, and print the final state of each.

    Args:
        raws: Composed configurations.
        overrides: Overrides of each job.
        options: Of the command line, for all jobs.

    Returns:
        The job of each configuration; equal configurations share one.

    Raises:
        KeyboardInterrupt: after a signal that left runs unfinished.
        JobError: if a run failed.
    """
    in_all = set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()
    names = [" ".join(o.lstrip("+") for o in own if o not in in_all) for own in overrides]
    configs = check_all(zip(names, raws, strict=True), lambda raw: resolved(validate(raw)))
    jobs: dict[Path, Job] = {}
    for name, config, own in zip(names, configs, overrides, strict=True):
        command = [*_program(), *options, *own]
        job = Job(name, config.run_dir, command, config.runtime.time_limit)
        jobs.setdefault(job.folder, job)
    any_gpu = raws[0].runtime.device in ("auto", "cuda")  # with cuda:1 all jobs use that device
    devices = visible_devices(torch.cuda.device_count()) if any_gpu else ()
    shares = share(len(jobs), configs[0].runtime, cores=usable_cores(), devices=devices)

    def on_end(job: Job) -> None:
        if job.state == "done":
            try:
                record = read_record(job.folder / RECORD)
                job.accuracy = record.selection.accuracy
                job.message = summary(record, job.folder / RECORD)[0]
            except UserError as error:
                job.state, job.message = "failed", str(error)
        ended = sum(job.state not in ("waiting", "running") for job in jobs.values())
        echo(f"[{ended}/{len(jobs)}] {job.state}: {job.name}: {job.message}")

    for job in jobs.values():
        if (job.folder / RECORD).is_file():
            job.state = "done"
            on_end(job)
    left = [job for job in jobs.values() if job.state == "waiting"]
    echo(f"{len(left)} of {len(jobs)} runs left, {len(shares.slots)} at a time")
    run_sweep(left, shares, on_end)
    states = [job.state for job in jobs.values()]
    echo(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    for job in jobs.values():
        if job.state not in ("done", "waiting", "interrupted"):
            echo(f"{job.state}: {job.name}: {job.message}", error=True)
    if not {"waiting", "interrupted"}.isdisjoint(states):
        raise KeyboardInterrupt
    if failed := len(states) - states.count("done"):
        raise JobError(f"{failed} of {len(jobs)} failed")
    return [jobs[config.run_dir] for config in configs]


def _program() -> list[str]:
    """Command of a job: this program, or the user's script that adds components and called it."""
    script = Path(sys.argv[0]).resolve()
    if script.suffix == ".py" and script != Path(__file__).resolve().with_name("train.py"):
        return [sys.executable, str(script)]
    return [sys.executable, "-m", "spinal_repro.cli.train"]
