"""Device of a run: threads, precision, compilation, memory and timing."""

import ctypes
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from spinal_repro.errors import UserError
from spinal_repro.io import read_yaml

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
INT_MAX = 2**31 - 1


def keep_freed_memory() -> bool:
    """Configure glibc malloc to keep freed memory; return whether the C library can.

    By default glibc returns every block above 32 MiB to the system, which clears its pages for the
    next layer: half of the time of EfficientNet-Lite0 at 224 px on a CPU. With this the process
    stays near its peak of memory.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; Windows has no CDLL(None)
        return False
    return bool(mallopt(M_MMAP_MAX, 0) == mallopt(M_TRIM_THRESHOLD, INT_MAX) == 1)


def resolve_device(name: str) -> torch.device:
    """Find a device by its name; ``auto`` is CUDA, then MPS, then the CPU."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    available = {"cuda": gpus, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        return torch.device(next(kind for kind, count in available.items() if count))
    kind, _, index = name.partition(":")
    if not (index or "0").isdecimal() or int(index or 0) >= available.get(kind, 0):
        found = ", ".join(f"{count} {kind}" for kind, count in available.items())
        raise UserError(f"no device {name}: PyTorch finds {found}; use runtime.device=auto")
    return torch.device(name)


def set_threads(threads: int | None, folder: Path) -> int:
    """Set the number of CPU threads and return it.

    None is the number in the run folder's ``config.yaml``, because another number changes the last
    digits of sums, else PyTorch's default.
    """
    if threads is None:
        with suppress(UserError, KeyError, TypeError, ValueError):  # no such file, or damaged
            threads = max(1, int(read_yaml(folder / "config.yaml")["runtime"]["threads"]))
    torch.set_num_threads(threads or torch.get_num_threads())
    return torch.get_num_threads()


def autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[Any]]:
    """Return a factory of autocast contexts for ``bf16``, of null contexts for other precisions."""
    in_bf16 = partial(torch.autocast, device.type, torch.bfloat16)
    return in_bf16 if precision == "bf16" else nullcontext


@contextmanager
def backend_settings(
    device: torch.device, precision: str, deterministic: bool = False
) -> Iterator[None]:
    """Context with PyTorch's global settings for a run.

    cuDNN benchmarks its algorithms for each batch shape, unless the run is deterministic.
    Convolutions use TF32 unless the precision is ``fp32``; matrix products never do.
    """
    if deterministic and device.type == "mps":
        raise UserError("runtime.deterministic=true does not work on mps; use runtime.device=cpu")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.use_deterministic_algorithms(True)  # imports PyTorch's compiler, which is slow
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    cudnn.benchmark, cudnn.deterministic = not deterministic, deterministic
    cudnn.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        if deterministic:
            torch.use_deterministic_algorithms(False)
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = before


def compile_model(model: torch.nn.Module, device: torch.device, graph: bool = True) -> None:
    """Compile a model in place, once per shape of batch; on CUDA by default as CUDA graphs."""
    names = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    if device.type == "cpu" and not any(map(shutil.which, names)):
        raise UserError(
            "runtime.compile=true on a CPU needs a C++ compiler: install g++, or set CXX"
        )
    graphed = graph and device.type == "cuda"
    model.compile(mode="reduce-overhead" if graphed else None, dynamic=False)


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes bf16 in hardware, as far as PyTorch can tell."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    of_cpu: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    names = ("avx512_bf16", "amx_bf16", "avx512_f", "bf16")
    return device.type == "mps" or not of_cpu or any(of_cpu.get(name) for name in names)


def timestamp(device: torch.device) -> Any:
    """Time at which the work queued so far is done: on CUDA an event, so without waiting."""
    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event
    if device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def seconds_between(first: Any, last: Any) -> float:
    """Seconds between two timestamps; on CUDA, both must have passed."""
    return last - first if isinstance(last, float) else first.elapsed_time(last) / 1000
