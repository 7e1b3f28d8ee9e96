"""``spinal data``."""

import numpy as np
import pytest
from helpers.composing import composed
from helpers.idx_files import idx_bytes, paths, write_dataset
from PIL import Image

from spinal_repro.config.compose import compose
from spinal_repro.data.catalog import load_catalog
from spinal_repro.data.contact_sheet import CELL, GAP, LINE, contact_sheet


@pytest.fixture
def kmnist(tmp_path):
    """Small files of the format; checksums of KMNIST's contents were never published."""
    write_dataset(tmp_path, composed("dataset=kmnist").dataset, 60, 20)
    return tmp_path


@pytest.fixture
def data(call):
    """Standard output of a command, or its message if it must fail."""

    def run(*arguments: object, fails: bool = False) -> str:
        ended = call("spinal", "data", *map(str, arguments))
        assert ended.code == (2 if fails else 0), ended.err
        return ended.err if fails else ended.out

    return run


def test_list_shows_every_data_set(kmnist, data):
    lines = data("list", "--root", kmnist).splitlines()
    rows = {line.split()[0]: line for line in lines if line}
    assert set(load_catalog()) <= set(rows)
    assert rows["kmnist"].endswith("yes") and rows["mnist"].endswith("no")
    assert "CC BY-SA 4.0" in rows["kmnist"] and "manual" in rows["bird225"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("svhn", ["73,257", "md5 e26dedcc434d2e4c54c9b2d4a06d8373", "ufldl.stanford.edu"]),
        ("bird225", ["manual", "valid 1,125", "version 30", "spinal data import bird225"]),
        ("digits", ["scikit-learn"]),
    ],
)
def test_info(name, shown, data, monkeypatch):
    monkeypatch.setenv("SPINAL_MIRROR", "http://mirror.example/data")
    out = data("info", name)
    assert all(text in out for text in shown)
    assert ("http://mirror.example/data/svhn/train_32x32.mat" in out) == (name == "svhn")


def test_verify(kmnist, data):
    assert "4 files, 0 with checksums" in data("verify", "kmnist", "--root", kmnist)
    path = kmnist / "KMNIST/raw/t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    err = data("verify", "kmnist", "--root", kmnist, fails=True)
    assert path.name in err and "spinal data fetch kmnist" in err


MINE = """
{name: mine, title: Mine, source: folder, options: {folder: mine, train: train, test: val},
 num_classes: 2, image_size: null, channels: 3, train_size: 2, test_size: 2,
 about: {state: manual, instructions: [ask]}}
"""


def test_verify_finds_an_image_that_is_cut_short(here, data):
    for part in ("train", "val"):
        for name in ("ants", "bees"):
            (here / "mine" / part / name).mkdir(parents=True)
            Image.effect_noise((64, 64), 50).save(here / "mine" / part / name / "0.jpg")
    (here / "cfg/dataset").mkdir(parents=True)
    (here / "cfg/dataset/mine.yaml").write_text(MINE)
    words = ("verify", "mine", "--root", here, "--config-dir", "cfg")
    data(*words)
    path = here / "mine/val/bees/0.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "bees/0.jpg cannot be read" in data(*words, fails=True)


def test_import_of_single_files_names_what_is_missing(kmnist, tmp_path, data):
    raw, root = kmnist / "KMNIST/raw", tmp_path / "root"
    kaggle = tmp_path / "train-images.idx3-ubyte"  # as Kaggle spells it
    (raw / "train-images-idx3-ubyte").rename(kaggle)
    err = data("import", "kmnist", kaggle, "--root", root, fails=True)
    assert "t10k-labels-idx1-ubyte" in err and not (root / "KMNIST").exists()
    data("import", "kmnist", kaggle, raw, "--root", root)
    assert len(list((root / "KMNIST/raw").iterdir())) == 4
    err = data("import", "fruits360", tmp_path, "seed=1", "--root", root, fails=True)
    assert "dataset.KEY=VALUE" in err


def test_fetch_names_what_failed(here, data, monkeypatch):
    monkeypatch.setenv("SPINAL_OFFLINE", "1")
    err = data("fetch", "mnist", "digits", "bird225", "--root", here, fails=True)
    assert "SPINAL_OFFLINE" in err and "bird225" in err and "digits" not in err
    assert list(here.iterdir()) == []


def test_sheet_of_digits(here, data):
    weighted = ("recipe.class_weights=balanced", "recipe.sampler=balanced")
    assert "sheet.png" in data("show", "digits", "model=vgg5", *weighted, "--out", "sheet.png")
    with Image.open("sheet.png") as image:
        assert image.format == "PNG" and image.width >= 10 * (CELL + GAP)
    assert "no/a.png" in data("show", "digits", "--out", "no/a.png", fails=True)


def test_without_augmentation_both_halves_are_equal_and_emnist_is_upright(tmp_path):
    overrides = ["dataset.train_size=60", "dataset.test_size=30", "recipe.augment=[]"]
    config = compose(["dataset=emnist_digits", *overrides])
    write_dataset(tmp_path, config.dataset, 60, 30)
    pixels = np.zeros((60, 28, 28), np.uint8)
    pixels[:, :14] = 255  # the upper half in the file is the left half when upright
    paths(tmp_path, config.dataset)[0].write_bytes(idx_bytes(pixels))
    sheet = np.asarray(contact_sheet(config, tmp_path).convert("L"))
    top = GAP + LINE + GAP + LINE
    first = sheet[top : top + CELL, GAP : GAP + CELL]
    assert (first[:, : CELL // 2] == 255).all() and (first[:, CELL // 2 :] == 0).all()
    below = sheet[len(sheet) // 2 :]
    assert any(np.array_equal(below[y : y + CELL, GAP : GAP + CELL], first) for y in range(100))
