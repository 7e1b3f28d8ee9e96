"""Fixtures for all tests."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra


@pytest.fixture(autouse=True)
def quiet_machine() -> None:
    """One thread a test, and no Hydra state left over from another one.

    Ctrl-C is heard, though shells tell what they run in the background to ignore it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    GlobalHydra.instance().clear()


@pytest.fixture
def real_data() -> Path:
    """The folder of the published data sets; tests that need it are skipped without."""
    folder = os.environ.get("SPINAL_TEST_DATA")
    if not folder:
        pytest.skip("set SPINAL_TEST_DATA to a folder with MNIST/raw/ to test on published data")
    return Path(folder)
