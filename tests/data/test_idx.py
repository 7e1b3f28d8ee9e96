"""The MNIST family: files of the true format, whole, gzipped, damaged, missing and downloaded."""

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import mirror
from helpers.composing import composed
from helpers.idx_files import (
    Part,
    file_names,
    gzip_in_place,
    idx_bytes,
    raw_folder,
    write_dataset,
)
from torchvision import datasets as tv

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data import install
from spinal_repro.data.catalog import File, entry_for
from spinal_repro.data.idx import EMNIST_SPLITS, read_idx
from spinal_repro.data.sources import ImageSet, load_dataset
from spinal_repro.errors import UserError

CLASSES = {"emnist_letters": 26, "emnist_letters_62": 26, "emnist_balanced": 47}
NAMES = ["mnist", "fashion_mnist", "kmnist", "qmnist", "emnist_digits", *CLASSES]
TRAIN, TEST = 120, 60


def small(name: str, **options: str) -> DatasetConfig:
    """The shipped configuration of a data set, with the sizes of the files written here."""
    shipped = composed(f"dataset={name}").dataset
    options = {**shipped.options, **options}
    return dataclasses.replace(shipped, train_size=TRAIN, test_size=TEST, options=options)


def write(root: Path, name: str) -> tuple[DatasetConfig, tuple[Part, Part]]:
    config = small(name)
    return config, write_dataset(root, config, TRAIN, TEST)


def assert_holds(images: ImageSet, part: Part, offset: int = 0) -> None:
    assert (images.images.dtype, images.labels.dtype) == (torch.uint8, torch.int64)
    assert np.array_equal(images.images[:, 0].numpy(), part.images)
    assert np.array_equal(images.labels.numpy(), part.labels.astype(np.int64) + offset)


@pytest.mark.parametrize("name", NAMES)
def test_files_are_loaded(tmp_path: Path, name: str) -> None:
    config, (train, test) = write(tmp_path, name)
    dataset = load_dataset(config, tmp_path)
    offset = -1 if name == "emnist_letters" else 0
    assert_holds(dataset.train, train, offset)
    assert_holds(dataset.test, test, offset)
    classes, first = CLASSES.get(name, 10), int(name == "emnist_letters_62")
    assert dataset.train.labels.unique().tolist() == list(range(first, first + classes))
    assert config.outputs == (62 if name == "emnist_letters_62" else classes)


def test_another_folder(tmp_path: Path) -> None:
    _, (train, _) = write(tmp_path, "mnist")
    (tmp_path / "MNIST").rename(tmp_path / "Mine")
    assert_holds(load_dataset(small("mnist", folder="Mine/raw"), tmp_path).train, train)


def test_mnist_is_what_torchvision_reads(real_data: Path) -> None:
    ours = load_dataset(composed("dataset=mnist").dataset, real_data)
    for part, train in ((ours.train, True), (ours.test, False)):
        theirs = tv.MNIST(real_data, train=train)
        assert torch.equal(part.images[:, 0], theirs.data)
        assert torch.equal(part.labels, theirs.targets)


def test_emnist_has_the_splits_of_torchvision(tmp_path: Path) -> None:
    assert set(EMNIST_SPLITS) == set(tv.EMNIST.splits)
    with pytest.raises(UserError, match=r"dataset\.options\.split.*letters"):
        load_dataset(small("emnist_letters", split="letter"), tmp_path)


# Gzipped files


@pytest.mark.parametrize("name", ["kmnist", "qmnist"])
def test_gzipped_files_are_unpacked(tmp_path: Path, name: str) -> None:
    config, (train, test) = write(tmp_path, name)
    folder = raw_folder(tmp_path, config)
    for file in file_names(config)[1:]:
        gzip_in_place(folder / file)
    (folder / f"{file_names(config)[0]}.gz").write_bytes(b"not needed")
    dataset = load_dataset(config, tmp_path)
    assert_holds(dataset.train, train)
    assert_holds(dataset.test, test)
    expected = {*file_names(config), *(f"{file}.gz" for file in file_names(config))}
    assert {path.name for path in folder.iterdir()} == expected


def test_a_truncated_gzipped_file(tmp_path: Path) -> None:
    config, _ = write(tmp_path, "kmnist")
    folder, name = raw_folder(tmp_path, config), file_names(config)[2]
    packed = gzip_in_place(folder / name)
    packed.write_bytes(packed.read_bytes()[:-10])
    with pytest.raises(UserError, match=rf"{name}\.gz is damaged.*spinal data info kmnist"):
        load_dataset(config, tmp_path)
    assert not (folder / name).exists()


# Missing files and downloads


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_name_the_folder_and_the_command(tmp_path: Path, name: str) -> None:
    config = small(name)
    with pytest.raises(UserError) as caught:
        load_dataset(config, tmp_path / "nowhere")
    message = str(caught.value)
    assert str(raw_folder(tmp_path / "nowhere", config)) in message
    assert f"spinal-train dataset={name} data.download=true" in message
    assert all(file in message for file in file_names(config))
    assert not (tmp_path / "nowhere").exists()


def test_a_single_missing_file_is_named(tmp_path: Path) -> None:
    config, _ = write(tmp_path, "mnist")
    path = raw_folder(tmp_path, config) / file_names(config)[2]
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=rf"missing {path.name}\)"):
        load_dataset(config, tmp_path)


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for download in (False, True):
        with pytest.raises(UserError, match="MNIST"):
            load_dataset(small("mnist"), tmp_path / "file", download)


@pytest.mark.parametrize("name", ["mnist", "qmnist", "emnist_letters_62"])
def test_download(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are put where torchvision reads them, beside an interrupted download of its."""
    config = small(name)
    train, test = write_dataset(tmp_path / "made", config, TRAIN, TEST)
    made = raw_folder(tmp_path / "made", config)
    served = {
        f"{file}.gz": gzip.compress((made / file).read_bytes()) for file in file_names(config)
    }
    if config.source == "emnist":
        served = {"gzip.zip": mirror.zip_of({f"gzip/{n}": data for n, data in served.items()})}
    entry = entry_for(config)
    files = [File(file, md5=mirror.md5(data)) for file, data in served.items()]
    contents = [File(file.name) for file in entry.contents]
    folder = raw_folder(tmp_path / "data", config)
    with mirror.serving() as server:
        about = {"mirrors": [server.url], "files": files, "contents": contents}
        entry = dataclasses.replace(entry, about=dataclasses.replace(entry.about, **about))
        monkeypatch.setattr(install, "entry_for", lambda config: entry)
        with pytest.raises(UserError, match=r"could not be fetched.*HTTP 404"):
            load_dataset(config, tmp_path / "data", download=True)
        assert not folder.exists()
        server.files = served
        folder.mkdir(parents=True)
        (folder / f"{file_names(config)[0]}.gz").write_bytes(b"\x1f\x8b\x08 interrupted")
        dataset = load_dataset(config, tmp_path / "data", download=True)
        count = len(server.asked)
        load_dataset(config, tmp_path / "data", download=True)
        assert len(server.asked) == count
    assert_holds(dataset.train, train, config.label_offset)
    assert_holds(dataset.test, test, config.label_offset)


# Damaged files

DAMAGE = {
    "empty": lambda c: b"",
    "header cut": lambda c: c[:7],
    "header only": lambda c: c[:16],
    "truncated": lambda c: c[:-1],
    "too long": lambda c: c + b"\0",
    "a web page": lambda c: b"<!DOCTYPE html><html>" + c,
    "still gzipped": gzip.compress,
    "another type": lambda c: b"\0\0\x09" + c[3:],
    "no images": lambda c: c[:4] + bytes(4) + c[8:16],
    "more images than there are": lambda c: c[:7] + bytes([c[7] + 1]) + c[8:],
    "labels": lambda c: idx_bytes(np.zeros(TRAIN, np.uint8)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_images(tmp_path: Path, damage: str) -> None:
    config, _ = write(tmp_path, "mnist")
    path = raw_folder(tmp_path, config) / file_names(config)[0]
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(UserError, match=rf"^{path.name} is damaged.*delete {path} and run"):
        load_dataset(config, tmp_path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a-images-idx3-ubyte", np.arange(24, dtype=np.uint8).reshape(2, 4, 3)),
        ("a-labels-idx1-ubyte", np.arange(5, dtype=np.uint8)),
        ("a-labels-idx2-int", np.arange(-3, 13, dtype=np.int32).reshape(2, 8) * 1000),
    ],
)
def test_an_array_comes_back(tmp_path: Path, name: str, array: np.ndarray) -> None:
    (tmp_path / name).write_bytes(idx_bytes(array))
    found = read_idx(tmp_path / name)
    assert found.dtype == array.dtype and found.dtype.isnative and found.flags.writeable
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("count", [TRAIN - 1, TRAIN + 1])
def test_images_and_labels_differ_in_number(tmp_path: Path, count: int) -> None:
    config, _ = write(tmp_path, "qmnist")
    path = raw_folder(tmp_path, config) / file_names(config)[1]
    path.write_bytes(idx_bytes(np.zeros((count, 8), np.int32)))
    with pytest.raises(UserError, match=rf"{TRAIN} images but {count} labels in {path.parent}"):
        load_dataset(config, tmp_path)


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("mnist", 10, r"0\.\.10, outside the 10 outputs"),
        ("qmnist", -1, r"-1\.\.9, outside the 10 outputs"),
        ("emnist_letters", 0, r"-1\.\.25, outside the 26 outputs"),
        ("emnist_letters_62", 62, r"1\.\.62, outside the 62 outputs"),
    ],
)
def test_label_out_of_range(tmp_path: Path, name: str, label: int, message: str) -> None:
    config, (_, test) = write(tmp_path, name)
    labels = test.labels.astype(np.int32)
    labels[np.flatnonzero(labels == labels.min() + 3)[1]] = label  # another of its class stays
    table = np.tile(labels[:, None], 8) if name == "qmnist" else labels.astype(np.uint8)
    (raw_folder(tmp_path, config) / file_names(config)[3]).write_bytes(idx_bytes(table))
    with pytest.raises(UserError, match=rf"\(test\) has labels {message}.*label_offset"):
        load_dataset(config, tmp_path)
