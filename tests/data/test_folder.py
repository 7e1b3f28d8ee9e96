"""Folders of image files."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from helpers.composing import composed
from PIL import Image

from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.data.folder import describe_left_out, with_counts
from spinal_repro.data.image_files import IMAGE_SUFFIXES, OWN_SUFFIXES, class_folders
from spinal_repro.data.photos import read_image
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
    with pytest.raises(UserError, match=r"val has classes .* trained on: wasps;"):
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
    found, _ = with_counts(ANYONES, root)
    assert (found.num_classes, found.train_size, found.test_size) == (2, 4, 4)
    assert (found.name, found.title) == ("folder_own", "Images in own")
    assert with_counts(CONFIG, root)[0] == CONFIG


def test_the_contents_of_a_folder_are_its_classes_images_and_labels(root, tmp_path):
    """Not its name: a copy is the same, exchanged labels and other class names are not."""
    for index, path in enumerate(sorted(root.glob("own/*/*/*.png"))):
        Image.new("RGB", (40, 32), (index, 0, 0)).save(path)

    def contents(folder):
        return with_counts(ANYONES, folder)[1]

    first, copy = contents(root), tmp_path / "copy"
    shutil.copytree(root / "own", copy / "own")
    assert first and first == contents(copy)
    ants, bees = (copy / "own/train" / name / "0.png" for name in ("ants", "bees"))
    for old, new in ((ants, "kept"), (bees, ants), (copy / "kept", bees)):
        old.rename(copy / new)
    assert contents(copy) != first
    for old, new in ((ants, "kept"), (bees, ants), (copy / "kept", bees)):
        old.rename(copy / new)
    assert contents(copy) == first
    for part in ("train", "val"):
        (copy / "own" / part / "ants").rename(copy / "own" / part / "antlions")
    assert contents(copy) != first


@pytest.mark.parametrize("parts", ["", "train/"])
def test_hidden_files_are_left_out_and_links_followed_at_any_depth(tmp_path, parts):
    """In both layouts; what else is no image is counted by its suffix."""
    base = tmp_path / "own" / parts
    for name in ("ants", "bees"):
        write_images(base / name, 5)
    if parts:
        shutil.copytree(base, tmp_path / "own/test")
    plain = load_dataset(ANYONES, tmp_path)
    for hidden in ("ants/.ipynb_checkpoints", "bees/more/.git/deep", "__MACOSX/ants", ".thumbs"):
        write_images(base / hidden)
    for name in ("ants/._0.png", "bees/more/.DS_Store"):
        (base / name).write_bytes(b"left there by a Mac")
    assert len(load_dataset(ANYONES, tmp_path).train) == len(plain.train)
    write_images(tmp_path / "elsewhere/2024", 3)
    (base / "bees/2024").symlink_to(tmp_path / "elsewhere/2024")
    (base / "bees/up").symlink_to("..")
    for name in ("ants/a.txt", "bees/b.txt", "labels.csv", "ants/Thumbs.db"):
        (base / name).write_bytes(b"")
    found = load_dataset(ANYONES, tmp_path)
    assert len(found.train) + len(found.test) == len(plain.train) + len(plain.test) + 3
    assert found.left_out == {".txt": 2, ".csv": 1, ".db": 1}
    assert describe_left_out(found.left_out).startswith("4 files left out: .txt 2, ")


def test_a_user_s_own_images_may_be_of_any_kind_that_pillow_reads(tmp_path):
    """Published data sets are counted with torchvision's kinds: hymenoptera has a stray .gif."""
    for name in ("ants", "bees"):
        write_images(tmp_path / "own" / name)
    image = Image.new("RGB", (40, 32))
    for suffix in OWN_SUFFIXES:
        kind = Image.registered_extensions().get(suffix)
        if kind in Image.SAVE:
            image.convert("L" if suffix == ".pgm" else "RGB").save(tmp_path / f"own/bees/x{suffix}")
    saved = list(tmp_path.glob("own/bees/x*"))
    assert {".gif", ".jfif"} <= {path.suffix for path in saved}
    found = load_dataset(ANYONES, tmp_path)
    assert len(found.train) + len(found.test) == 4 + len(saved) and not found.left_out
    for path in saved:
        assert read_image(path, 3, Preprocessing()).shape == (3, 32, 40)
    published = {path.suffix for path in class_folders(tmp_path / "own")[0]["bees"]}
    assert published == set(IMAGE_SUFFIXES) & {path.suffix for path in saved}


@pytest.mark.parametrize("inside", ["", "ants", "test/ants"])  # nothing, one class, no train
def test_a_folder_that_is_no_data_set(tmp_path, inside):
    if inside:
        write_images(tmp_path / "own" / inside)
    with pytest.raises(UserError, match=r"data\.root=FOLDER"):
        load_dataset(ANYONES, tmp_path)


# Through the command

TRAIN = (
    "spinal-train dataset=folder data.root=own model=flatten head=linear recipe=sgd "
    "dataset.image_size=8 recipe.epochs=1 recipe.mean=[0.5] recipe.std=[0.5] runtime.progress=lines"
)


@pytest.mark.parametrize(
    ("more", "classes", "images"),
    [
        ("__MACOSX/ants/._0.jpg", "ants, bees", 10),  # an archive of a Mac
        ("ants/.ipynb_checkpoints/0-checkpoint.jpg", "ants, bees", 10),
        ("wasps/0.gif wasps/1.gif ants/0.jfif", "ants, bees, wasps", 13),
        ("../elsewhere/0.png", "ants, bees", 11),  # linked to from bees
    ],
)
def test_classes_and_images_that_are_meant(call, here, more, classes, images):
    for name in ("ants", "bees"):
        write_images(here / "own" / name, 5)
    for path in map((here / "own").joinpath, more.split()):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (here / "own/bees/2024").symlink_to("../../elsewhere")
    ended = call(TRAIN)
    assert ended.code == 0 and f" classes ({classes}): " in ended.out, ended.err
    (record,) = here.glob("runs/*/*/*/record.json")
    assert sum(json.loads(record.read_text())["data"]["sizes"].values()) == images


@pytest.mark.parametrize("part", ["", "train", "fit"])
def test_an_empty_class_is_refused_wherever_the_training_images_are(call, here, part):
    for name in ("ants", "bees"):
        write_images(here / "own" / part / name, 5)
        if part == "fit":
            write_images(here / "own/held" / name)
    (here / "own" / part / "empty").mkdir()
    words = "dataset.options.train=fit dataset.options.test=held" if part == "fit" else ""
    ended = call(f"{TRAIN} {words}")
    assert ended.code == 2 and "empty has no image files" in ended.err
    assert not (here / "runs").exists()


def test_two_data_sets_are_not_two_classes(call, here):
    for name in (
        "own/first/train/a",
        "own/first/test/a",
        "own/second/Training/b",
        "own/second/val/b",
    ):
        write_images(here / name)
    ended = call(TRAIN)
    assert ended.code == 2 and f"data.root={here}/own/first" in ended.err


def test_a_class_may_be_called_train(call, here):
    for name in ("car", "plane", "train"):
        write_images(here / "own" / name, 5)
    ended = call(TRAIN)
    assert ended.code == 2 and ended.err.endswith("set dataset.options.train=.\n")
    ended = call(f"{TRAIN} dataset.options.train=.")
    assert ended.code == 0 and " classes (car, plane, train): " in ended.out, ended.err


def test_a_folder_one_level_too_high_is_refused(call, here):
    for name in ("ants", "bees"):
        write_images(here / "own/unpacked/train" / name)
    (here / "own/__MACOSX/unpacked").mkdir(parents=True)
    ended = call(TRAIN)
    assert ended.code == 2 and "data.root=FOLDER" in ended.err


def test_with_a_limit_only_the_images_used_are_decoded(call, here):
    for name in ("ants", "bees"):
        write_images(here / "own" / name, 40)
    assert call(f"{TRAIN} data.limit=4").code == 0
    cached = [np.load(path).shape[0] for path in here.glob("runs/.cache/*.npy")]
    assert cached and sum(cached) <= 3 * 4
