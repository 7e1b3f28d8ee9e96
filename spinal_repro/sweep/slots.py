"""How many jobs of a sweep run at once, and what each of them gets of the machine."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from spinal_repro.config.schema import RuntimeConfig


class ResourceSlots(NamedTuple):
    """The share of the machine that each job of a sweep gets.

    Attributes:
        threads: CPU threads of each job.
        slots: One entry per job that runs at once: its ``CUDA_VISIBLE_DEVICES``, or None.
    """

    threads: int
    slots: tuple[str | None, ...]


def share(
    count: int, runtime: RuntimeConfig, *, cores: int, devices: tuple[str, ...] = ()
) -> ResourceSlots:
    """Divide the machine.

    Args:
        count: Jobs of the sweep, finished ones included: the same command must give a job as many
            threads as before, since their number changes the last digits.
        runtime: ``jobs`` (``auto``: one per device, or one per core) and ``threads``.
        cores: That may be used.
        devices: To be handed out in turn; none on a CPU.
    """
    asked = runtime.threads
    at_once = len(devices) or max(1, cores // (asked or 1))
    if isinstance(runtime.jobs, int):
        at_once = runtime.jobs
    at_once = max(1, min(count, at_once))
    slots = [devices[slot % len(devices)] if devices else None for slot in range(at_once)]
    return ResourceSlots(asked or max(1, cores // at_once), tuple(slots))


def usable_cores() -> int:
    """Cores that this process may use: its affinity (SLURM, taskset), else all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_devices(count: int, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Names of the ``count`` devices that PyTorch sees, fit for ``CUDA_VISIBLE_DEVICES``."""
    named = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return tuple(([name for name in named if name] or [str(i) for i in range(count)])[:count])
