"""Folders of image files."""

import numpy as np
import pytest
import torch
from PIL import Image

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.folder import with_counts
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import UserError

OWN = {"folder": "own", "train": "train", "test": "val"}


def config(**changes):
    base = {
        "name": "own", "title": "Own", "source": "folder", "num_classes": 2, "image_size": 28,
        "channels": 3, "train_size": 4, "test_size": 4, "options": OWN,
    }  # fmt: skip
    return DatasetConfig(**{**base, **changes})


def anyones(**changes):
    """dataset=folder: nothing is known before the folder is looked at."""
    unknown = {"num_classes": None, "train_size": None, "test_size": None}
    return config(name="folder", **{**unknown, "options": {"folder": "own"}, **changes})


def write_images(folder, count=2, level=0):
    folder.mkdir(parents=True)
    for index in range(count):
        pixels = np.full((32, 40, 3), level + index, np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


@pytest.fixture
def root(tmp_path):
    for part in ("train", "val"):
        for label, name in enumerate(("ants", "bees")):
            write_images(tmp_path / "own" / part / name, level=100 * label)
    return tmp_path


def test_files_class_by_class(root):
    dataset = load_dataset(config(), root)
    assert list(dataset.classes) == ["ants", "bees"] and dataset.val is None
    assert dataset.train.labels.tolist() == dataset.test.labels.tolist() == [0, 0, 1, 1]
    names = [path.relative_to(root / "own/train").as_posix() for path in dataset.train.paths]
    assert names == ["ants/0.png", "ants/1.png", "bees/0.png", "bees/1.png"]


def test_other_files_and_hidden_ones_are_passed_over(root):
    (root / "own/train/ants/notes.txt").write_text("no image")
    (root / "own/train/ants/._0.png").write_bytes(b"left there by a Mac")
    (root / "own/train/.thumbnails").mkdir()
    deeper = root / "own/train/ants/more"
    write_images(deeper, count=1)
    assert len(load_dataset(config(train_size=5), root).train) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 3}, "2 class folders"),
        ({"options": {**OWN, "folder": "other"}}, r"no such folder.*data\.root"),
        ({"options": {**OWN, "tset": "val"}}, "did you mean 'test'"),
        ({"train_size": 5}, "4 images, expected 5"),
        ({"val_size": 2}, "0 images, expected 2"),
        ({}, "wasps"),
    ],
)
def test_refusals(root, changes, message):
    if not changes:
        (root / "own/val/bees").rename(root / "own/val/wasps")
    with pytest.raises(UserError, match=message):
        load_dataset(config(**changes), root)


def test_a_class_folder_without_images_is_refused(root):
    (root / "own/train/wasps").mkdir()
    (root / "own/train/wasps/0.heic").write_bytes(b"a format that is not read")
    with pytest.raises(UserError, match="wasps has no image files"):
        load_dataset(anyones(), root)


def test_a_class_may_lack_test_images(root):
    for path in (root / "own/val/bees").iterdir():
        path.unlink()
    assert load_dataset(config(test_size=2), root).test.labels.tolist() == [0, 0]
    for path in (root / "own/train/bees").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="bees has no image files"):
        load_dataset(config(), root)


# Anyone's own images


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("train", "val"), ("train", None, "val")),
        (("train", "valid", "test"), ("train", "valid", "test")),
        (("Training", "Test"), ("Training", None, "Test")),
    ],
)
def test_parts_are_found_by_their_usual_names(tmp_path, parts, expected):
    for part in parts:
        for name in ("ants", "bees"):
            write_images(tmp_path / "own" / part / name)
    dataset = load_dataset(anyones(), tmp_path)

    def where(images):
        return None if images is None else images.paths[0].parts[-3]

    assert (where(dataset.train), where(dataset.val), where(dataset.test)) == expected


def test_images_without_parts_are_split_the_same_way_each_time(tmp_path):
    for name, count in (("ants", 10), ("bees", 20)):
        write_images(tmp_path / "own" / name, count)
    first, second = (load_dataset(anyones(), tmp_path) for _ in range(2))
    assert (len(first.train), len(first.test)) == (24, 6)
    assert torch.bincount(first.test.labels).tolist() == [2, 4]
    assert set(first.train.paths).isdisjoint(first.test.paths)
    assert len({*first.train.paths, *first.test.paths}) == 30
    assert first.test.paths == second.test.paths


def test_classes_and_images_are_counted(root):
    found = with_counts(anyones(options={"folder": "own"}), root)
    assert (found.num_classes, found.train_size, found.test_size) == (2, 4, 4)
    assert (found.name, found.title) == ("folder_own", "Images in own")
    assert with_counts(config(), root) == config()


@pytest.mark.parametrize("what", ["nothing", "one class", "no train"])
def test_a_folder_that_is_no_data_set(tmp_path, what):
    folder = tmp_path / "own"
    if what == "one class":
        write_images(folder / "ants")
    if what == "no train":
        write_images(folder / "test/ants")
    with pytest.raises(UserError, match=r"data\.root=FOLDER"):
        load_dataset(anyones(), tmp_path)
