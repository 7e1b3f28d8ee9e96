"""The script that writes folders with a class of background images (recipes 9)."""

import dataclasses
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.composing import changed, composed
from PIL import Image

from spinal_repro.data.assemble import problems
from spinal_repro.data.catalog import entry_for
from spinal_repro.data.photos import read_image
from spinal_repro.data.sources import Dataset, ImageSet, load_dataset
from spinal_repro.errors import UserError
from spinal_repro.inference import evaluate, load_run, load_split
from spinal_repro.training.run import run

SCRIPTS = Path(__file__).parents[2] / "scripts"
TRAIN, TEST, BACKGROUND = 200, 100, 300


@pytest.fixture
def script(monkeypatch):
    if not SCRIPTS.is_dir():
        pytest.skip("scripts/ is in the repository, not in the source archive")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("background_folders")
    monkeypatch.delitem(sys.modules, "background_folders")


def one_colour(folder: Path, count: int) -> list[Path]:
    """Files of one grey level each, of different sizes and types."""
    folder.mkdir()
    paths = [folder / f"{n:04}{('.png', '.JPG')[n % 2]}" for n in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (2 + number % 3, 2), (number % 256,) * 3).save(path)
    return paths


@pytest.fixture
def folders(script, real_data, tmp_path):
    """A few images of CIFAR-10 with more background images, and their configuration."""
    whole = load_dataset(composed("dataset=cifar10").dataset, real_data)
    parts = whole.train.subset(np.arange(TRAIN)), whole.test.subset(np.arange(TEST))
    dataset = dataclasses.replace(whole, train=parts[0], test=parts[1])
    files = one_colour(tmp_path / "other", BACKGROUND)
    script.write_folders(dataset, files, tmp_path / "cifar10_background", val=False)
    with pytest.raises(UserError, match="exists"):
        script.write_folders(dataset, files, tmp_path / "cifar10_background", val=False)
    config = composed("dataset=cifar10_background", "model=flatten", "head=fc", "protocol=paper")
    settings = {
        "dataset.train_size": TRAIN + BACKGROUND, "dataset.test_size": TEST, "runs": str(tmp_path),
        "data.root": str(tmp_path), "recipe.epochs": 1, "recipe.prepare": {
            part: {"resize": [32, 32]} for part in ("train", "eval")
        }, "runtime.device": "cpu", "runtime.progress": "none",
    }  # fmt: skip
    return parts, changed(config, settings), files


def test_background_images_are_the_last_class_and_in_train_only(folders, script):
    (train, test), config, files = folders
    made = load_dataset(config.dataset, config.data.root)
    assert made.classes[-1] == script.BACKGROUND and len(made.classes) == 11
    for part, source, extra in ((made.train, train, BACKGROUND), (made.test, test, 0)):
        counts = torch.bincount(source.labels, minlength=10).tolist()
        assert torch.bincount(part.labels, minlength=11).tolist() == [*counts, extra]
        for path, label in zip(part.paths, part.labels.tolist(), strict=True):
            number = int(path.stem)
            if label == 10:
                assert path.read_bytes() == files[number].read_bytes()
                continue
            pixels = read_image(path, 3, config.preprocessing("eval"))
            assert label == source.labels[number]
            assert np.array_equal(pixels, source.images[number].numpy())
    assert problems(entry_for(config.dataset), Path(config.data.root)) == []


def test_the_background_output_does_not_count_on_test_images(folders):
    _, config, _ = folders
    record = run(config).record
    trained = load_run(config.run_dir, "cpu")
    test, same = load_split(trained, "test")
    found = evaluate(trained, test)
    assert same and found.correct == record.test.selected.correct
    assert found.predictions.max() < 10 and test.outputs == 10
    train, _ = load_split(trained, "train")
    test.outputs = train.outputs  # now an image may be taken for background
    counted = evaluate(trained, test).predictions
    assert 10 in counted and torch.equal(counted[counted < 10], found.predictions[counted < 10])


def test_the_notebook_holds_out_every_tenth_image_and_one_of_the_background(script, tmp_path):
    pixels = torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    images = ImageSet(pixels, torch.arange(40) % 2)
    files, made = one_colour(tmp_path / "other", 3) * 667, tmp_path / "made"  # 2,001
    script.write_folders(Dataset(images, images, classes=["a", "b"]), files, made, val=True)
    found = {
        part: {p.relative_to(made / part).as_posix() for p in (made / part).rglob("*.*")}
        for part in ("train", "valid", "test")
    }
    held = {"a/00004.png", "a/00014.png", "a/00024.png", "a/00034.png"}
    assert found["valid"] == held | {"zz_background/01999.jpg"}  # the 2,000th file is the second
    assert not found["train"] & held and "zz_background/01999.jpg" in found["train"]
    assert [len(found[part]) for part in ("train", "test")] == [36 + 2001, 40]
