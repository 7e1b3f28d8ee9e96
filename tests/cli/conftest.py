"""Fixtures for the commands."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(here) -> Path:
    """The working directory, with ``photos/``: two classes of ten images."""
    random = np.random.default_rng(0)
    for name in ("ants", "bees"):
        (here / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(here / "photos" / name / f"{number}.png")
    return here
