"""The machine, the versions and the commit of a run, for its record."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from spinal_repro import __version__


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Collect versions and machine."""
    return {
        "spinal_repro": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": version("numpy"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
    }


def git_revision() -> dict[str, Any]:
    """Commit of this package: ``SPINAL_COMMIT`` (HASH or HASH+modified), else of its checkout."""
    if given := os.environ.get("SPINAL_COMMIT"):
        commit, _, modified = given.partition("+")
        return {"commit": commit, "modified": modified != ""}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # may be a venv in a repo
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": "unknown", "modified": None}


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name.*?:(.*)", path.read_text() if path.is_file() else "", re.M)
    return found[1].strip() if found else platform.processor() or platform.machine()
