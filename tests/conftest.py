"""Fixtures for all tests."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra


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
