"""The device that a run is computed on: threads, precision, compilation and memory."""

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from spinal_repro.errors import UserError
from spinal_repro.io import read_yaml

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, for the tensors of the next layer.

    As it comes, glibc asks the system for every block above 32 MiB and returns it when it is freed.
    A photograph's activations are such blocks, and the system clears each of their pages: half of
    the time of EfficientNet-Lite0 at 224 px. The process stays near its peak of memory then.

    Returns:
        Whether there is such a setting: elsewhere than on glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; Windows has no CDLL(None)
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: LARGEST}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def resolve_device(name: str) -> torch.device:
    """The device a name stands for; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: where this machine or this PyTorch does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"runtime.device '{name}' is not a device; use auto, cpu or cuda"
        ) from error
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise UserError(f"runtime.device={name}, but PyTorch finds no such device here; use auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"runtime.device={name}, but there are {torch.cuda.device_count()} CUDA devices"
        )
    return device


def set_threads(threads: int | None, folder: Path) -> int:
    """Set the number of CPU threads: the one asked for, or that the run began with, or all.

    Another number changes the last digits of sums, so a run that continues keeps its own.

    Args:
        threads: ``runtime.threads``.
        folder: The run folder.
    """
    if threads is None:
        with suppress(
            UserError, KeyError, TypeError, ValueError
        ):  # there is none, or it is damaged
            threads = max(1, int(read_yaml(folder / "config.yaml")["runtime"]["threads"]))
    torch.set_num_threads(threads or torch.get_num_threads())
    return torch.get_num_threads()


def autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[Any]]:
    """A factory of contexts that compute in bf16 where that is the precision; weights stay fp32."""
    if precision != "bf16":
        return nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


@contextmanager
def backend_settings(
    device: torch.device, precision: str, deterministic: bool = False
) -> Iterator[None]:
    """PyTorch's global settings for a run; they are restored afterwards.

    cuDNN times its algorithms for each shape of batch and takes the fastest, unless only
    deterministic ones are allowed. Convolutions may use TF32, as is PyTorch's default, unless the
    precision is ``fp32``; matrix products never do.

    Args:
        device: Where the run is computed.
        precision: ``fp32``, ``tf32`` or ``bf16``.
        deterministic: Only operations that give the same bits each time; PyTorch raises a
            RuntimeError at one that has no such variant.

    Raises:
        UserError: for ``deterministic`` on a device for which PyTorch does not support it.
    """
    if deterministic and device.type == "mps":
        raise UserError(
            "runtime.deterministic=true is not supported by PyTorch on mps; use "
            "runtime.device=cpu, or runtime.deterministic=false"
        )
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    cudnn, strict = torch.backends.cudnn, torch.are_deterministic_algorithms_enabled()
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    changes = deterministic and not strict  # the call imports PyTorch's compiler: seconds
    if changes:
        torch.use_deterministic_algorithms(True)
    cudnn.deterministic = deterministic or strict
    cudnn.benchmark = not cudnn.deterministic
    cudnn.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        if changes:
            torch.use_deterministic_algorithms(False)
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = before


def compile_model(model: torch.nn.Module, device: torch.device) -> None:
    """Compile a model in place, one program for each shape of batch, made when it first comes.

    Its ``state_dict`` stays as it is. On CUDA the programs are replayed as CUDA graphs.

    Raises:
        UserError: where the C++ compiler that PyTorch needs on a CPU is missing.
    """
    names = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    if device.type == "cpu" and not any(map(shutil.which, names)):
        raise UserError(
            "runtime.compile=true needs a C++ compiler (g++ or clang++) on a CPU, and none is "
            "found; install one, name it in CXX, or leave runtime.compile out"
        )
    mode = "reduce-overhead" if device.type == "cuda" else None
    model.compile(mode=mode, dynamic=False)


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes bf16 in hardware, as far as PyTorch tells."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return True
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    names = ("avx512_bf16", "amx_bf16", "avx512_f", "bf16")
    return any(capabilities.get(name) for name in names) or not capabilities
