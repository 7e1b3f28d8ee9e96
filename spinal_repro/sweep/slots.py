"""Number of concurrent jobs of a sweep, with the threads and the GPU of each."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from spinal_repro.config.schema import RuntimeConfig


class ResourceSlots(NamedTuple):
    """CPU threads of each job, and one slot per concurrent job."""

    threads: int
    slots: tuple[str | None, ...]  # CUDA_VISIBLE_DEVICES of the job, if it is set


def share(
    count: int, runtime: RuntimeConfig, *, cores: int, devices: tuple[str, ...] = ()
) -> ResourceSlots:
    """Divide the machine among jobs, as ``runtime.jobs`` and ``runtime.threads`` say.

    Args:
        count: Number of jobs of the sweep, also finished ones: a repeated command must give a job
            the same number of threads, which affects the rounding of its results.
    """
    at_once = len(devices) or max(1, cores // (runtime.threads or 1))
    if isinstance(runtime.jobs, int):
        at_once = runtime.jobs
    at_once = max(1, min(count, at_once))
    slots = [devices[slot % len(devices)] if devices else None for slot in range(at_once)]
    return ResourceSlots(runtime.threads or max(1, cores // at_once), tuple(slots))


def usable_cores() -> int:
    """Cores that this process may use: its affinity (SLURM, taskset), else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_devices(count: int, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Names for ``CUDA_VISIBLE_DEVICES`` of the ``count`` GPUs that PyTorch finds."""
    named = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return tuple(([name for name in named if name] or [str(i) for i in range(count)])[:count])
