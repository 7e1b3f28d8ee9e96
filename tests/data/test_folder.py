"""Folders of image files."""

import numpy as np
import pytest
import torch
from PIL import Image

from spinal_repro.config import DatasetConfig
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import UserError


def config(**changes):
    base = {
        "name": "own", "title": "Own", "source": "folder", "num_classes": 2, "image_size": 28,
        "channels": 3, "train_size": 4, "test_size": 4, "options": {"folder": "own"},
    }  # fmt: skip
    return DatasetConfig(**{**base, **changes})


@pytest.fixture
def root(tmp_path):
    for part in ("train", "val"):
        for label, name in enumerate(("ants", "bees")):
            folder = tmp_path / "own" / part / name
            folder.mkdir(parents=True)
            for index, size in enumerate(((64, 32), (40, 50))):
                pixels = np.full((size[1], size[0], 3), 100 * label + index, np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path


def test_images_have_the_cells_size(root):
    dataset = load_dataset(config(), root)
    assert dataset.train.images.shape == (4, 3, 28, 28)
    assert dataset.train.images.dtype == torch.uint8
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    assert dataset.test.images[:, 0, 5, 5].tolist() == [0, 1, 100, 101]


def test_the_centre_is_kept(root):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:48] = 200  # the middle half
    Image.fromarray(pixels).save(root / "own/train/ants/0.png")
    image = load_dataset(config(), root).train.images[0]
    assert image.min() == 200  # 28 of 32 px, resized from 32


def test_grey(root):
    assert load_dataset(config(channels=1), root).train.images.shape == (4, 1, 28, 28)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 3}, "2 class folders"),
        ({"options": {"folder": "other"}}, "missing train/.*data.root"),
        ({"options": {"folder": "own", "tset": "val"}}, "did you mean 'test'"),
        ({"options": {"folder": "own", "interpolation": "cubic"}}, "bicubic"),
        ({"options": {"folder": "own", "crop": 0}}, "crop"),
        ({"train_size": 5}, "4 images where 5"),
    ],
)
def test_refusals(root, changes, message):
    with pytest.raises(UserError, match=message):
        load_dataset(config(**changes), root)


def test_a_damaged_image_is_named(root):
    (root / "own/val/bees/1.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(UserError, match=r"bees/1\.png cannot be read"):
        load_dataset(config(), root)


def test_parts_with_other_classes(root):
    (root / "own/val/bees").rename(root / "own/val/wasps")
    with pytest.raises(UserError, match=r"bees.*wasps"):
        load_dataset(config(), root)
