"""Plots of a run: files that are PNG, and show what they are given."""

import numpy as np
import pytest
from PIL import Image

from spinal_repro.records.plots import draw_confusion, draw_curves


def ink(path):
    """The darkness of a picture; it must be a PNG."""
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 300
        return 255 - np.asarray(image.convert("L"), float).mean()


def test_curves_of_the_parts_that_the_history_has(tmp_path):
    history = [
        {"epoch": e, **{f"{part}_{m}": e / 9 for part in ("train", "val") for m in MEASURES}}
        for e in range(1, 9)
    ]
    draw_curves(history, "a $1 run", tmp_path / "both.png")
    train = [{k: v for k, v in entry.items() if "val" not in k} for entry in history]
    draw_curves(train, "a $1 run", tmp_path / "train.png")
    assert ink(tmp_path / "both.png") != ink(tmp_path / "train.png") > 0


MEASURES = ("loss", "accuracy")


@pytest.mark.parametrize("classes", [2, 30, 200])
def test_confusion_of_any_number_of_classes(tmp_path, classes):
    names = [f"class {number}" for number in range(classes)]
    draw_confusion(np.eye(classes, dtype=int), names, "right", tmp_path / "right.png")
    draw_confusion(np.zeros((classes, classes), int), names, "none", tmp_path / "none.png")
    assert ink(tmp_path / "right.png") != ink(tmp_path / "none.png")
    with Image.open(tmp_path / "right.png") as image:
        assert max(image.size) < 2000
