"""Images that are refused when they are decoded."""

import numpy as np
import pytest
from PIL import Image

from spinal_repro.data.decoding import read_image
from spinal_repro.preparation import Preparation


def test_images_that_would_fill_the_memory(tmp_path, monkeypatch):
    line = tmp_path / "line.png"
    Image.new("L", (1, 60_000)).save(line)
    assert line.stat().st_size < 2000
    with pytest.raises(ValueError, match=r"1 x 60000 pixels would become 256 x 15,360,000"):
        read_image(line, 3, Preparation(resize=256, crop=224))
    assert read_image(line, 3, Preparation(resize=[8, 8])).shape == (3, 8, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    with pytest.raises(Image.DecompressionBombError):
        read_image(tmp_path / "bomb.png", 3, Preparation(resize=8, crop=8))


def test_pixels_of_unknown_range(tmp_path):
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="32 bits"):
        read_image(tmp_path / "x.tif", 3, Preparation(resize=8, crop=8))
