"""Folders of image files."""

import dataclasses

import pytest
import torch
from helpers.composing import composed
from PIL import Image

from spinal_repro.data.folder import with_counts
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import UserError

# nothing is known of dataset=folder before the folder is looked at
ANYONES = dataclasses.replace(composed("dataset=folder").dataset, options={"folder": "own"})
OWN = {"folder": "own", "train": "train", "test": "val"}
SIZES = {"num_classes": 2, "train_size": 4, "test_size": 4}
CONFIG = dataclasses.replace(ANYONES, name="own", options=OWN, **SIZES)


def write_images(folder, count=2):
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (40, 32)).save(folder / f"{index}.png")


@pytest.fixture
def root(tmp_path):
    for part in ("train", "val"):
        for name in ("ants", "bees"):
            write_images(tmp_path / "own" / part / name)
    return tmp_path


def test_files_class_by_class_without_hidden_and_other_ones(root):
    train = root / "own/train"
    (train / "ants/notes.txt").write_text("no image")
    (train / "ants/._0.png").write_bytes(b"left there by a Mac")
    (train / ".thumbnails").mkdir()
    write_images(train / "ants/more", count=1)
    dataset = load_dataset(dataclasses.replace(CONFIG, train_size=5), root)
    assert list(dataset.classes) == ["ants", "bees"] and dataset.val is None
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    names = [path.relative_to(train).as_posix() for path in dataset.train.paths]
    assert names == ["ants/0.png", "ants/1.png", "ants/more/0.png", "bees/0.png", "bees/1.png"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 3}, "2 class folders"),
        ({"options": {**OWN, "folder": "other"}}, r"no such folder.*data\.root"),
        ({"options": {**OWN, "tset": "val"}}, "did you mean 'test'"),
        ({"train_size": 5}, "4 images, expected 5"),
        ({"val_size": 2}, "0 images, expected 2"),
    ],
)
def test_refusals(root, changes, message):
    with pytest.raises(UserError, match=message):
        load_dataset(dataclasses.replace(CONFIG, **changes), root)


def test_classes_without_images_and_in_one_part_only(root):
    own = root / "own"
    for path in (own / "val/bees").iterdir():
        path.unlink()
    few = dataclasses.replace(CONFIG, test_size=2)
    assert load_dataset(few, root).test.labels.tolist() == [0, 0], "only train needs every class"
    (own / "train/wasps").mkdir()
    (own / "train/wasps/0.heic").write_bytes(b"a format that is not read")
    with pytest.raises(UserError, match="wasps has no image files"):
        load_dataset(ANYONES, root)
    (own / "train/wasps").rename(own / "val/wasps")
    write_images(own / "val/wasps/more")
    with pytest.raises(UserError, match=r"\['wasps'\] are in .*val only"):
        load_dataset(ANYONES, root)


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
    dataset = load_dataset(ANYONES, tmp_path)
    found = (dataset.train, dataset.val, dataset.test)
    assert tuple(images and images.paths[0].parts[-3] for images in found) == expected


def test_images_without_parts_are_split_the_same_way_each_time(tmp_path):
    for name, count in (("ants", 10), ("bees", 20)):
        write_images(tmp_path / "own" / name, count)
    first, second = (load_dataset(ANYONES, tmp_path) for _ in range(2))
    assert torch.bincount(first.test.labels).tolist() == [2, 4]
    every = [*first.train.paths, *first.test.paths]
    assert len(every) == len(set(every)) == 30
    assert first.test.paths == second.test.paths


def test_classes_and_images_are_counted(root):
    found = with_counts(ANYONES, root)
    assert (found.num_classes, found.train_size, found.test_size) == (2, 4, 4)
    assert (found.name, found.title) == ("folder_own", "Images in own")
    assert with_counts(CONFIG, root) == CONFIG


@pytest.mark.parametrize("inside", ["", "ants", "test/ants"])  # nothing, one class, no train
def test_a_folder_that_is_no_data_set(tmp_path, inside):
    if inside:
        write_images(tmp_path / "own" / inside)
    with pytest.raises(UserError, match=r"data\.root=FOLDER"):
        load_dataset(ANYONES, tmp_path)
