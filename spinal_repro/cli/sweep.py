"""Sweeps of ``spinal-train``: every job in a process of its own."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from spinal_repro.config import validate
from spinal_repro.errors import UserError
from spinal_repro.text import tell


def with_launcher(arguments: Sequence[str]) -> list[str]:
    """The arguments of a sweep with the launcher that is ours, unless they choose one."""
    chosen = any(argument.lstrip("+").startswith("hydra/launcher=") for argument in arguments)
    return [*arguments] if chosen else [*arguments, "hydra/launcher=processes"]


def named(descriptions: Sequence[str], overrides: Sequence[Sequence[str]]) -> list[str]:
    """What jobs are called: a description, and which of their overrides the others do not have."""
    common = set.intersection(*map(set, overrides)) if overrides else set()
    return [
        " ".join([text, *(o for o in own if o not in common and o not in text.split())])
        for text, own in zip(descriptions, overrides, strict=True)
    ]


def run_together(raws: Sequence[DictConfig], names: Sequence[str]) -> tuple[list[Any], bool]:
    """Do the jobs of a sweep.

    Args:
        raws: Composed configurations.
        names: Of the jobs, for people.

    Returns:
        The jobs as they ended, and whether all of them were started.
    """
    from spinal_repro.sweep.jobs import Job
    from spinal_repro.sweep.supervisor import resolve, supervise

    jobs = []
    for raw, name in zip(raws, names, strict=True):
        job = Job(name)
        try:
            job.config = validate(raw)
        except UserError as error:
            job.state, job.message = "failed", str(error)
        jobs.append(job)
    _check_same(jobs)
    shares, left = resolve(jobs)
    for job in jobs:
        if job.state == "done":
            tell(f"already finished: {job.folder}")
    if left:
        tell(f"{len(left)} of {len(jobs)} runs to do, {shares}")
    ended = len(jobs) - len(left)

    def on_end(job: Any) -> None:
        nonlocal ended
        ended += 1
        tell(f"[{ended}/{len(jobs)}] {job.state}: {job.what}: {job.message}")

    whole = supervise(left, shares, on_end)
    for job in jobs:
        if job.state == "same":  # as the run that it is
            (twin,) = (other for other in left if other.folder == job.folder)
            job.state, job.accuracy = twin.state, twin.accuracy
            job.message = f"{job.message}: {twin.message}"
    return jobs, whole


def _check_same(jobs: Sequence[Any]) -> None:
    """Refuse a sweep over what holds for the whole of it."""
    for key in ("jobs", "threads"):
        values = {getattr(job.config.runtime, key) for job in jobs if job.config is not None}
        if len(values) > 1:
            raise UserError(
                f"runtime.{key} must be one value for the whole sweep, got "
                f"{', '.join(map(str, values))}"
            )
