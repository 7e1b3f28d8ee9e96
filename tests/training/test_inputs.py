"""A finished run never answers for other images, labels, classes or weights."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers.composing import composed
from helpers.idx_files import write_dataset
from PIL import Image
from safetensors.torch import save_file

from spinal_repro.config.compose import compose
from spinal_repro.models.backbones import load_backbones
from spinal_repro.models.pretrained import PUBLISHED
from spinal_repro.records.record import read_record
from spinal_repro.training.resolve import resolved

ROOT = Path(__file__).parents[2]

SMALL = (
    "model=flatten head=linear recipe=sgd recipe.epochs=1 recipe.batch_size=8 recipe.augment=[] "
    "dataset.image_size=8 recipe.mean=[0.5] recipe.std=[0.5] runtime.progress=lines"
)


def write_classes(folder, shift, names=("ants", "bees")):
    """All files have the same size and time of change, as if unpacked from an archive."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(10):
            colour = (20 * index + shift, 200 * number, 0)
            Image.new("RGB", (8, 8), colour).save(folder / name / f"{index}.bmp")
            os.utime(folder / name / f"{index}.bmp", (1, 1))


@pytest.fixture
def train(call, here):
    """Train, and return the run folders that there are, with what was printed."""

    def run(words):
        ended = call(f"spinal-train dataset=folder {SMALL} {words}")
        assert ended.code == 0, ended.err
        return sorted(path.parent for path in here.glob("runs/*/*/*/record.json")), ended.out

    return run


def test_other_images_labels_and_classes_are_another_run(train, call, here):
    write_classes(here / "a/photos", 0)
    write_classes(here / "b/photos", 5)
    first, _ = train("data.root=a/photos")
    again, out = train("data.root=a/photos")
    assert again == first and "already finished" in out
    both, out = train("data.root=b/photos")
    assert len(both) == 2 and f"classes than in {first[0].relative_to(here)}" in out
    shutil.move("a/photos/ants/3.bmp", "a/photos/kept.bmp")
    shutil.move("a/photos/bees/3.bmp", "a/photos/ants/3.bmp")
    shutil.move("a/photos/kept.bmp", "a/photos/bees/3.bmp")
    relabelled, out = train("data.root=a/photos")
    assert len(relabelled) == 3 and "already finished" not in out
    ended = call(f"spinal eval {first[0]}")  # would score images that it trained on
    assert ended.code == 2 and "--root FOLDER" in ended.err and not ended.out
    (here / "b/photos/ants").rename(here / "b/photos/Ants")
    assert len(train("data.root=b/photos")[0]) == 4
    hashes = {json.loads((f / "record.json").read_text())["identity"] for f in relabelled}
    assert len(hashes) == 3


def test_folders_whose_names_have_the_same_letters_are_not_one_run(train, here):
    for number, name in enumerate(("a b", "a@b", "a,b", "花卉", "猫狗")):
        write_classes(here / name, number)
        assert len(train(f"'data.root=\"{name}\"'")[0]) == number + 1


def test_a_sweep_over_two_folders_of_one_name_trains_both(call, here):
    write_classes(here / "a/photos", 0)
    write_classes(here / "b/photos", 5)
    ended = call(f"spinal-train -m dataset=folder {SMALL} data.root=a/photos,b/photos")
    assert ended.code == 0 and len(list(here.glob("runs/*/*/*/record.json"))) == 2


def test_other_weights_are_another_run(call, here):
    words = (
        "spinal-train dataset=digits model=cnn head=fc recipe.epochs=1 data.limit=20 "
        "runtime.progress=lines model.pretrained=mine.safetensors"
    )
    backbone, outs = load_backbones().build("cnn", {}, 1, 28).state_dict(), []
    for seed in (0, 1, 1):
        torch.manual_seed(seed)
        save_file({k: torch.randn_like(t) for k, t in backbone.items()}, "mine.safetensors")
        outs.append(call(words).out)
    assert len(list(here.glob("runs/*/*/*/record.json"))) == 2
    assert "other weights than in" in outs[1] and "already finished" in outs[2]


def test_a_cell_with_weights_of_its_own_is_another_run(here):
    """The weights that its records name are part of the cell."""
    path = next(ROOT.glob("results/records/controls/*_lite0_fc-*-s0.json"))
    record = read_record(path)
    assert record.pretrained
    assert record.pretrained["sha256"] == PUBLISHED[record.pretrained["source"]]
    words = [f"paper={record.cell}", "runtime.device=cpu", "data.root=."]
    assert resolved(compose(words)).identity() == record.identity
    weights = here / record.pretrained["source"]
    weights.parent.mkdir()
    weights.write_bytes(b"weights of another network")
    assert resolved(compose(words)).identity() != record.identity


def test_other_published_images_are_refused(call, here):
    for seed, root in enumerate(("a", "b")):
        write_dataset(here / root, composed("dataset=mnist").dataset, 60, 30, seed)
    words = (
        f"dataset=mnist {SMALL} dataset.image_size=28 dataset.train_size=60 dataset.test_size=30"
    )
    assert call(f"spinal-train {words} data.root=a").code == 0
    for command in ("spinal-train", "spinal-train -m seed=0,1"):
        ended = call(f"{command} {words} data.root=b")
        assert ended.code == 2 and f"images in {here}/b are not those of" in ended.err
    assert "already finished" in call(f"spinal-train {words} data.root=a").out
    shutil.rmtree("a")
    assert "already finished" in call(f"spinal-train {words} data.root=a").out


def test_what_is_unusual_about_the_data_is_said(train, call, here):
    """Classes with their sizes, files that are not read, images in two parts, the input."""
    write_classes(here / "photos/train", 0)
    write_classes(here / "photos/test", 0, ("ants",))
    (here / "photos/train/notes.txt").write_text("not an image")
    Image.new("RGB", (8, 8), "blue").save(here / "photos/train/ants/more.png")
    (run,), out = train("data.root=photos protocol=paper")
    assert "2 classes (ants, bees): 10 to 11 training images each" in out
    assert "1 file left out: .txt 1" in out and "input 3 x 8 x 8" in out
    both = "warning: test images that are also training images: 10"
    assert both in out and both in call(f"spinal eval {run}").err


@pytest.mark.parametrize("name", ["emnist_letters", "emnist_letters_62"])
def test_classes_are_counted_whatever_the_first_label(call, here, name):
    """EMNIST's letters are 1 to 26 in the files; 53 images are two of each, and one more."""
    write_dataset(here / "data", composed(f"dataset={name}").dataset, 53, 30)
    ended = call(
        f"spinal-train dataset={name} {SMALL} dataset.image_size=28 protocol=paper "
        f"dataset.train_size=53 dataset.test_size=30"
    )
    assert re.search("26 classes.*: 2 to 3 training images each", ended.out), ended.err
