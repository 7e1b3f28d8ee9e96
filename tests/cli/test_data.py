"""``spinal data``."""

import dataclasses
import gzip

import numpy as np
import pytest
from helpers import mirror as m
from helpers.idx_files import file_names, idx_bytes, raw_folder, write_dataset
from PIL import Image

from spinal_repro.cli.spinal import main
from spinal_repro.config.compose import compose
from spinal_repro.data.catalog import load_catalog
from spinal_repro.data.contact_sheet import CELL, GAP, LINE, contact_sheet


@pytest.fixture
def kmnist(tmp_path):
    """Small files of the format; the sums of KMNIST's contents were never published."""
    config = compose(["dataset=kmnist"]).dataset
    write_dataset(tmp_path, config, 60, 20)
    return tmp_path


def test_list_shows_every_data_set(kmnist, capsys):
    main(["data", "list", "--root", str(kmnist)])
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if line}
    assert set(load_catalog()) <= set(rows)
    assert rows["kmnist"].endswith("yes") and rows["mnist"].endswith("no")
    assert "CC BY-SA 4.0" in rows["kmnist"] and "manual" in rows["bird225"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("svhn", ["73,257", "md5 e26dedcc434d2e4c54c9b2d4a06d8373", "ufldl.stanford.edu"]),
        ("bird225", ["manual", "valid 1,125", "version 30", "spinal data import bird225"]),
        ("kmnist", ["February 2019"]),
        ("digits", ["scikit-learn"]),
    ],
)
def test_info(name, said, capsys, monkeypatch):
    monkeypatch.setenv("SPINAL_MIRROR", "http://mirror.example/data")
    main(["data", "info", name])
    out = capsys.readouterr().out
    assert all(text in out for text in said)
    assert ("http://mirror.example/data/svhn/train_32x32.mat" in out) == (name == "svhn")


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(["data", *arguments])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_verify(kmnist, capsys):
    main(["data", "verify", "kmnist", "--root", str(kmnist)])
    assert "4 files, 0 with checksums" in capsys.readouterr().out
    path = raw_folder(kmnist, compose(["dataset=kmnist"]).dataset) / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    err = fails(capsys, "verify", "kmnist", "--root", str(kmnist))
    assert "t10k-images-idx3-ubyte is damaged" in err and "spinal data fetch kmnist" in err


def test_import_single_files_and_what_is_still_missing(kmnist, tmp_path, capsys):
    raw, root = kmnist / "KMNIST/raw", tmp_path / "root"
    kaggle = tmp_path / "train-images.idx3-ubyte"  # as Kaggle spells it
    (raw / "train-images-idx3-ubyte").rename(kaggle)
    err = fails(capsys, "import", "kmnist", str(kaggle), "--root", str(root))
    assert "missing t10k-labels-idx1-ubyte" in err
    assert not (root / "KMNIST").exists()
    main(["data", "import", "kmnist", str(kaggle), str(raw), "--root", str(root)])
    assert len(list((root / "KMNIST/raw").iterdir())) == 4


def test_files_of_another_data_set_of_the_family(tmp_path, capsys, monkeypatch):
    """MNIST's files have KMNIST's names; that they are another's is known by their sums."""
    raw = tmp_path / "mine"
    raw.mkdir()
    catalog = load_catalog()
    sums = {}
    for name in ("train", "t10k"):
        for kind, array in (
            ("images-idx3", np.zeros((5, 28, 28), np.uint8)), ("labels-idx1", np.zeros(5, np.uint8))
        ):  # fmt: skip
            data = idx_bytes(array)
            (raw / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(data))
            sums[f"{name}-{kind}-ubyte.gz"] = m.sha256(data)
    about = catalog["mnist"].about
    files = [dataclasses.replace(file, holds=sums[file.name]) for file in about.files]
    about = dataclasses.replace(about, files=files)
    known = {**catalog, "mnist": dataclasses.replace(catalog["mnist"], about=about)}
    monkeypatch.setattr("spinal_repro.data.imports.load_catalog", lambda: known)
    err = fails(capsys, "import", "kmnist", str(raw), "--root", str(tmp_path / "root"))
    assert "train-images-idx3-ubyte is that of MNIST" in err
    assert not (tmp_path / "root/KMNIST").exists()


def test_overrides_of_other_groups_are_refused(tmp_path, capsys):
    err = fails(capsys, "import", "fruits360", str(tmp_path), "seed=1", "--root", str(tmp_path))
    assert "only dataset.KEY=VALUE" in err


def test_fetch_says_what_failed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SPINAL_OFFLINE", "1")
    err = fails(capsys, "fetch", "mnist", "digits", "bird225", "--root", str(tmp_path))
    assert "SPINAL_OFFLINE is set" in err and "not fetched: mnist, bird225" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["fetch", "info", "verify"])
def test_unknown_names(command, tmp_path, capsys):
    assert "did you mean 'mnist'" in fails(capsys, command, "mnsit", "--root", str(tmp_path))
    assert "mnsit" in fails(capsys, "show", "mnsit", "--root", str(tmp_path))


def test_sheet_of_digits(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    main(["data", "show", "digits", "model=vgg5", "--out", str(out)])
    assert str(out) in capsys.readouterr().out
    with Image.open(out) as image:
        assert image.format == "PNG" and image.width >= 10 * (CELL + GAP)
    assert "no/a.png" in fails(capsys, "show", "digits", "--out", str(tmp_path / "no/a.png"))


def test_without_augmentation_both_halves_are_equal_and_emnist_is_upright(tmp_path):
    overrides = ["dataset.train_size=60", "dataset.test_size=30", "recipe.augment=[]"]
    config = compose(["dataset=emnist_digits", *overrides])
    write_dataset(tmp_path, config.dataset, 60, 30)
    name = raw_folder(tmp_path, config.dataset) / file_names(config.dataset)[0]
    pixels = np.zeros((60, 28, 28), np.uint8)
    pixels[:, :14] = 255  # the upper half in the file is the left half for people
    name.write_bytes(idx_bytes(pixels))
    sheet = np.asarray(contact_sheet(config, tmp_path).convert("L"))
    top = GAP + LINE + GAP + LINE
    first = sheet[top : top + CELL, GAP : GAP + CELL]
    assert (first[:, : CELL // 2] == 255).all() and (first[:, CELL // 2 :] == 0).all()
    below = sheet[len(sheet) // 2 :]
    assert any(np.array_equal(below[y : y + CELL, GAP : GAP + CELL], first) for y in range(100))
