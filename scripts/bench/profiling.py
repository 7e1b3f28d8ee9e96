"""Profile of the bare step."""

from collections.abc import Iterable
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench.cases import Case
from bench.training import bare_step

KINDS = {
    "convolutions": ("conv",),
    "batch norm": ("batch_norm",),
    "pooling": ("pool",),
    "activations": ("relu", "threshold", "gelu"),
    "linear layers": ("addmm", "mm", "linear"),
    "dropout": ("dropout", "bernoulli"),
    "optimizer": ("_fused_", "Optimizer"),
    "casts and copies": ("copy", "contiguous", "_to_copy"),
}
LAYOUT = ("nchwToNhwc", "nhwcToNchw", "convertTensor")  # kernels of cuDNN


def shares(case: Case, steps: int) -> dict[str, Any]:
    """Return the fraction of the bare step's time by kind of operation."""
    step = bare_step(case, case.run(case.batch_size))
    on_gpu = case.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with case.settings():
        step()
        with profile(activities=activities) as profiler:
            for _ in range(steps):
                step()
    return {"case": case.name, **by_kind(profiler.key_averages(), on_gpu)}


def by_kind(events: Iterable[Any], on_gpu: bool) -> dict[str, float]:
    """Return the fraction of each kind; on a GPU, also that of conversions of memory layout.

    A GPU's kernels have events of their own, besides those of the operations that start them.
    """
    found = dict.fromkeys([*KINDS, "the rest"], 0.0)
    conversions = 0.0
    for event in events:
        seconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if event.device_type == DeviceType.CPU:
            found[_kind(event.key)] += seconds
        elif any(name in event.key for name in LAYOUT):
            conversions += seconds
    total = sum(found.values())
    if on_gpu:
        found["layout conversions"] = conversions
    return {kind: value / total for kind, value in found.items()}


def _kind(name: str) -> str:
    for kind, parts in KINDS.items():
        if any(part in name for part in parts):
            return kind
    return "the rest"
