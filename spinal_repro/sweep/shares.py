"""How many jobs of a sweep run at once, and what each of them gets of the machine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from spinal_repro.schema import RuntimeConfig


@dataclass(frozen=True)
class Shares:
    """What the jobs of a sweep get.

    Attributes:
        threads: CPU threads of each job.
        slots: One entry for each job that runs at once: the device it is handed, as
            ``CUDA_VISIBLE_DEVICES`` names it, or None where devices are left alone.
    """

    threads: int
    slots: tuple[str | None, ...]

    def __str__(self) -> str:
        """For people."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'} each"
        devices = len({slot for slot in self.slots if slot is not None})
        on = f", on {devices} CUDA device{'' if devices == 1 else 's'}" if devices else ""
        return f"{len(self.slots)} at a time, {threads}{on}"


def share(
    count: int, runtime: RuntimeConfig, *, cores: int, devices: tuple[str, ...] = ()
) -> Shares:
    """Divide the machine.

    The threads follow from the whole sweep and not from what is left of it, so that a sweep that is
    issued again computes the rest as it would have: another number of threads changes last digits.

    Args:
        count: Jobs of the whole sweep.
        runtime: ``jobs`` (``auto``: one a device, or on the CPU as many as there are cores for)
            and ``threads`` (a number, or an equal share of the cores).
        cores: That may be used.
        devices: To be handed out in turn; none on a CPU.
    """
    asked = runtime.threads if isinstance(runtime.threads, int) else None
    at_once = len(devices) or max(1, cores // (asked or 1))
    if isinstance(runtime.jobs, int):
        at_once = runtime.jobs
    at_once = max(1, min(count, at_once))
    slots = [devices[slot % len(devices)] if devices else None for slot in range(at_once)]
    return Shares(asked or max(1, cores // at_once), tuple(slots))


def usable_cores() -> int:
    """Cores that this process may use: its affinity (SLURM, taskset), else all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_devices(count: int, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Names of the CUDA devices that a job can be handed.

    Args:
        count: Devices that PyTorch sees.
        environment: Where ``CUDA_VISIBLE_DEVICES`` may stand.
    """
    named = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    named = [name for name in named if name]
    return tuple((named or [str(index) for index in range(count)])[:count])
