"""The jobs of a sweep, checked before the first one starts; by default each is a process."""

import importlib.util
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.override_parser.types import Glob

from spinal_repro.cli.overrides import parse_overrides
from spinal_repro.config.compose import choices, compose, search_path
from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError
from spinal_repro.io import echo
from spinal_repro.records.record import read_record
from spinal_repro.records.store import RECORD
from spinal_repro.sweep.runner import Job, run_sweep, share, usable_cores, visible_devices

DEFAULT_LAUNCHER = "processes"
PLUGINS = {  # by prefix of the launcher's name: its package, and the extra that installs it
    "submitit": ("hydra_submitit_launcher", "slurm"),
    "slurm": ("hydra_submitit_launcher", "slurm"),
    "joblib": ("hydra_joblib_launcher", "parallel"),
}


class JobError(Exception):
    """A job of a sweep did not finish."""


def launcher_of(arguments: Sequence[str]) -> str:
    """Find the launcher that a command line chooses; refuse one that is not installed."""
    keys = ("hydra/launcher=", "hydra/sweeper=")  # a sweeper of Hydra's needs its launchers
    found = [a.partition("=")[2] for a in arguments if a.lstrip("+").startswith(keys)]
    launcher = [DEFAULT_LAUNCHER, *found][-1]
    for beginning, (plugin, extra) in PLUGINS.items():
        names = ("hydra_plugins", f"hydra_plugins.{plugin}")
        if launcher.startswith(beginning) and not all(map(importlib.util.find_spec, names)):
            raise UserError(f"hydra/launcher={launcher} needs: pip install 'spinal-repro[{extra}]'")
    return launcher


def jobs_of(words: Sequence[str], folders: Sequence[Path] = ()) -> list[tuple[str, ...]]:
    """List the overrides of every job of a command line's overrides."""
    settings = [word for word in words if not word.lstrip("+~").startswith("hydra")]
    words_of: dict[str, list[str]] = {}
    for override in parse_overrides(settings):
        key, value = override.get_key_element(), override.value()
        words_of[key] = [override.input_line or key]
        if isinstance(value, Glob):
            words_of[key] = [f"{key}={name}" for name in value.filter(choices(key, folders))]
        elif override.is_discrete_sweep():
            words_of[key] = [f"{key}={name}" for name in override.sweep_string_iterator()]
        elif override.is_sweep_override():  # interval(...)
            raise UserError(f"a sweep needs a list of values: {key}=A,B,C")
    return list(itertools.product(*words_of.values()))


def names_of(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Name jobs by the overrides that not all of them have."""
    in_all = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
    return [" ".join(o.lstrip("+") for o in own if o not in in_all) for own in jobs]


def check_jobs(
    jobs: Sequence[Sequence[str]], composed: Callable[[Sequence[str]], Config]
) -> list[Config]:
    """Check every job down to the shapes of its model, without reading data."""
    from spinal_repro.training.setup import check_parts

    configs, refused, checked = [], [], set()
    for name, job in zip(names_of(jobs), jobs, strict=True):
        try:
            config = composed(job)
            if config.identity() not in checked:  # a seed does not change the model's shapes
                check_parts(config)
                checked.add(config.identity())
            configs.append(config)
        except UserError as error:
            refused.append(f"{name}: {error}")
    if refused:
        raise UserError("no job was started: some cannot be run:\n  " + "\n  ".join(refused))
    if not configs:
        raise UserError("this sweep has no jobs: one of its lists or ranges is empty")
    return configs


def run_jobs(overrides: Sequence[Sequence[str]], folders: Sequence[Path]) -> list[Path]:
    """Run the jobs of a sweep, and print the final state of each; equal configurations share one.

    Returns the run folders. Raises KeyboardInterrupt after a signal that left runs unfinished, and
    JobError if a run failed.
    """
    import torch

    from spinal_repro.data.photos import save_digests
    from spinal_repro.data.preprocessing import CACHE
    from spinal_repro.training.outputs import summary
    from spinal_repro.training.resolve import resolved
    from spinal_repro.training.tracking import tracker_error

    configs = check_jobs(overrides, lambda own: resolved(compose(own, *folders)))
    Path(configs[0].runs).mkdir(parents=True, exist_ok=True)
    save_digests(Path(configs[0].runs) / CACHE)
    jobs: dict[Path, Job] = {}
    for name, config, own in zip(names_of(overrides), configs, overrides, strict=True):
        command = [*_program(), *search_path(folders), *own]
        job = Job(name, config.run_dir, command, config.runtime.time_limit)
        jobs.setdefault(job.folder, job)
    device = compose(overrides[0], *folders).runtime.device  # with cuda:1 all jobs use that one
    devices = visible_devices(torch.cuda.device_count() if device in ("auto", "cuda") else 0)
    threads, slots = share(len(jobs), configs[0].runtime, cores=usable_cores(), devices=devices)

    def on_end(job: Job) -> None:
        if job.state == "done":
            path = job.folder / RECORD
            try:
                job.message = summary(read_record(path), path)[0]
            except UserError as error:  # a damaged record affects no other job
                job.state, job.message = "failed", str(error)
        ended = sum(job.state not in ("waiting", "running") for job in jobs.values())
        echo(f"[{ended}/{len(jobs)}] {job.state}: {job.name}: {job.message}")

    for job in jobs.values():
        if (job.folder / RECORD).is_file():
            job.state = "done"
            on_end(job)
    left = [job for job in jobs.values() if job.state == "waiting"]
    echo(f"{len(left)} of {len(jobs)} runs left, {len(slots)} at a time")
    run_sweep(left, threads, slots, on_end)
    states = [job.state for job in jobs.values()]
    echo(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    for job in jobs.values():
        if job.state not in ("done", "waiting", "interrupted"):
            echo(f"{job.state}: {job.name}: {job.message}", error=True)
    for folder, config in {config.run_dir: config for config in configs}.items():
        if why := tracker_error(config):
            echo(f"warning: {jobs[folder].name}: {why}", error=True)
    if not {"waiting", "interrupted"}.isdisjoint(states):
        raise KeyboardInterrupt
    if failed := len(states) - states.count("done"):
        raise JobError(f"{failed} of {len(jobs)} failed")
    return list(jobs)


def _program() -> list[str]:
    """Command of a job: this program, or the user's script that adds components and called it."""
    script = Path(sys.argv[0]).resolve()
    if script.suffix == ".py" and script != Path(__file__).resolve().with_name("train.py"):
        return [sys.executable, str(script)]
    return [sys.executable, "-m", "spinal_repro.cli.train"]
