"""Fixtures for all tests."""

import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from spinal_repro.cli import spinal, train


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch) -> None:
    """One thread, default signal handlers, no proxy, no Hydra state and no settings of the user."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    torch.set_num_threads(1)
    GlobalHydra.instance().clear()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "*")
    ours = ("SPINAL_OFFLINE", "SPINAL_MIRROR", "SPINAL_DATA", "SPINAL_RUNS", "SPINAL_COMMIT")
    for name in ours:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def real_data() -> Path:
    """The folder of the published data sets; tests that need it are skipped without."""
    folder = os.environ.get("SPINAL_TEST_DATA")
    if not folder:
        pytest.skip("set SPINAL_TEST_DATA to a folder with MNIST/raw/ to test on published data")
    return Path(folder)


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def call(here, monkeypatch, capsys) -> Callable[..., Ended]:
    """Run a command in this process: a line, or its words."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # the command sets it; here it must not stay

    def run(*given: str) -> Ended:
        words = shlex.split(given[0]) if len(given) == 1 else list(given)
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        code = 0
        try:
            (train if words[0] == "spinal-train" else spinal).main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:  # Hydra sets up logging onto the captured output
            root.handlers[:] = handlers
            root.setLevel(level)
        return Ended(code, *capsys.readouterr())

    return run
