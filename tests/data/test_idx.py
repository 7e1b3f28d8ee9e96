"""The MNIST family: files of the true format, whole, gzipped, damaged, missing and downloaded."""

import dataclasses
import functools
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import mirror
from helpers.idx_files import (
    Part,
    file_names,
    gzip_in_place,
    idx_bytes,
    make_part,
    raw_folder,
    write_dataset,
)
from torchvision import datasets as tv

from spinal_repro.config.compose import compose
from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data import fetch
from spinal_repro.data.catalog import Entry, File, entry_for
from spinal_repro.data.idx import EMNIST_SPLITS, read_idx
from spinal_repro.data.sources import ImageSet, load_dataset
from spinal_repro.errors import UserError

PUBLISHED_SIZES = {  # recipe book, section 1.6
    "mnist": (60_000, 10_000),
    "fashion_mnist": (60_000, 10_000),
    "kmnist": (60_000, 10_000),
    "qmnist": (60_000, 60_000),
    "emnist_digits": (240_000, 40_000),
    "emnist_letters": (124_800, 20_800),
    "emnist_letters_62": (124_800, 20_800),
    "emnist_balanced": (112_800, 18_800),
}
CLASSES = {"emnist_letters": 26, "emnist_letters_62": 26, "emnist_balanced": 47}
TRAIN, TEST = 120, 60


@functools.cache
def shipped(name: str) -> DatasetConfig:
    return compose([f"dataset={name}"]).dataset


def small(name: str) -> DatasetConfig:
    """The shipped configuration of a data set, with the sizes of the files written here."""
    return dataclasses.replace(shipped(name), train_size=TRAIN, test_size=TEST)


def write(root: Path, name: str) -> tuple[DatasetConfig, tuple[Part, Part]]:
    config = small(name)
    return config, write_dataset(root, config, TRAIN, TEST)


def assert_holds(images: ImageSet, part: Part, offset: int = 0) -> None:
    assert (images.images.dtype, images.labels.dtype) == (torch.uint8, torch.int64)
    assert np.array_equal(images.images[:, 0].numpy(), part.images)
    assert np.array_equal(images.labels.numpy(), part.labels.astype(np.int64) + offset)


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_files_are_loaded(tmp_path: Path, name: str) -> None:
    config, (train, test) = write(tmp_path, name)
    dataset = load_dataset(config, tmp_path)
    offset = -1 if name == "emnist_letters" else 0
    assert_holds(dataset.train, train, offset)
    assert_holds(dataset.test, test, offset)
    classes, first = CLASSES.get(name, 10), int(name == "emnist_letters_62")
    assert dataset.train.labels.unique().tolist() == list(range(first, first + classes))


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_shipped_sizes_are_the_published_ones(name: str) -> None:
    config = shipped(name)
    assert (config.train_size, config.test_size) == PUBLISHED_SIZES[name]
    assert config.num_classes == CLASSES.get(name, 10)
    assert config.outputs == (62 if name == "emnist_letters_62" else config.num_classes)
    assert (config.image_size, config.channels, config.name) == (28, 1, name)


def test_mnist_is_what_torchvision_reads(real_data: Path) -> None:
    ours = load_dataset(shipped("mnist"), real_data)
    for part, train in ((ours.train, True), (ours.test, False)):
        theirs = tv.MNIST(real_data, train=train)
        assert torch.equal(part.images[:, 0], theirs.data)
        assert torch.equal(part.labels, theirs.targets)


def test_emnist_has_the_splits_that_torchvision_has() -> None:
    assert set(EMNIST_SPLITS) == set(tv.EMNIST.splits)


@pytest.mark.parametrize("options", [{}, {"split": "letter"}, {"split": None}])
def test_unknown_emnist_split(tmp_path: Path, options: dict) -> None:
    config = dataclasses.replace(small("emnist_letters"), options=options)
    with pytest.raises(UserError, match=r"dataset\.options\.split.*letters"):
        load_dataset(config, tmp_path)


# Gzipped files


@pytest.mark.parametrize("name", ["mnist", "qmnist", "emnist_balanced"])
def test_gzipped_files_are_unpacked(tmp_path: Path, name: str) -> None:
    config, (train, test) = write(tmp_path, name)
    folder = raw_folder(tmp_path, config)
    for file in file_names(config):
        gzip_in_place(folder / file)
    dataset = load_dataset(config, tmp_path)
    assert_holds(dataset.train, train)
    assert_holds(dataset.test, test)
    expected = {*file_names(config), *(f"{file}.gz" for file in file_names(config))}
    assert {path.name for path in folder.iterdir()} == expected, "nothing else is left behind"


def test_plain_files_are_preferred_to_gzipped_ones(tmp_path: Path) -> None:
    config, (train, _) = write(tmp_path, "mnist")
    folder = raw_folder(tmp_path, config)
    (folder / f"{file_names(config)[0]}.gz").write_bytes(b"never read")
    assert_holds(load_dataset(config, tmp_path).train, train)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_truncated_gzipped_file(tmp_path: Path, share: float) -> None:
    config, _ = write(tmp_path, "mnist")
    folder, name = raw_folder(tmp_path, config), file_names(config)[2]
    packed = gzip_in_place(folder / name)
    packed.write_bytes(packed.read_bytes()[: int(share * packed.stat().st_size)])
    with pytest.raises(UserError, match=rf"{name}\.gz is damaged.*delete .*fetch it again"):
        load_dataset(config, tmp_path)
    # half a file must not be taken for a whole one next time
    assert {p.name for p in folder.iterdir()} == {*file_names(config), packed.name} - {name}


# Missing files and downloads


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_missing_data_names_the_folder_and_the_command(tmp_path: Path, name: str) -> None:
    config = small(name)
    with pytest.raises(UserError) as caught:
        load_dataset(config, tmp_path / "nowhere")
    message = str(caught.value)
    assert str(raw_folder(tmp_path / "nowhere", config)) in message
    assert f"spinal-train dataset={name} data.download=true" in message
    assert "data.root" in message and "SPINAL_DATA" in message
    assert all(file in message for file in file_names(config))
    assert not (tmp_path / "nowhere").exists(), "looking must not create folders"


@pytest.mark.parametrize("folder", [True, False])
def test_a_single_missing_file_is_named(tmp_path: Path, folder: bool) -> None:
    config, _ = write(tmp_path, "mnist")
    path = raw_folder(tmp_path, config) / file_names(config)[2]
    path.unlink()
    if folder:
        path.mkdir()
    with pytest.raises(UserError, match=rf"missing {path.name}\)"):
        load_dataset(config, tmp_path)


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for download in (False, True):
        with pytest.raises(UserError, match="MNIST"):
            load_dataset(small("mnist"), tmp_path / "file", download)


def published_elsewhere(config: DatasetConfig, root: Path, url: str) -> tuple[Entry, dict]:
    """The catalog's record with its mirrors on this machine and small files; what to serve."""
    write_dataset(root, config, TRAIN, TEST)
    contents = {name: (raw_folder(root, config) / name).read_bytes() for name in file_names(config)}
    entry = entry_for(config)
    if config.source == "emnist":
        packed = {f"gzip/{name}.gz": gzip.compress(data) for name, data in contents.items()}
        served = {"gzip.zip": mirror.zip_of({**packed, "gzip/emnist-mnist-mapping.txt": b""})}
    else:
        served = {f"{name}.gz": gzip.compress(data) for name, data in contents.items()}
    files = [File(name, md5=mirror.md5(data)) for name, data in served.items()]
    sizes = [File(file.name) for file in entry.about.contents]
    about = dataclasses.replace(entry.about, mirrors=[url], files=files, contents=sizes)
    return dataclasses.replace(entry, about=about), served


@pytest.mark.parametrize("name", ["mnist", "qmnist", "emnist_letters_62"])
def test_download(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fetched lands where torchvision reads it, whatever else lies there."""
    config = small(name)
    with mirror.serving() as server:
        entry, server.files = published_elsewhere(config, tmp_path / "made", server.url)
        monkeypatch.setattr(fetch, "entry_for", lambda config: entry)
        folder = raw_folder(tmp_path / "data", config)
        folder.mkdir(parents=True)
        (folder / f"{file_names(config)[0]}.gz").write_bytes(
            b"\x1f\x8b\x08 an interrupted download"
        )
        dataset = load_dataset(config, tmp_path / "data", download=True)
    assert_holds(dataset.train, make_part(config, TRAIN, 0), config.label_offset)
    assert_holds(dataset.test, make_part(config, TEST, 1), config.label_offset)


@pytest.mark.parametrize("name", ["mnist", "emnist_letters"])
def test_failed_download(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(name)
    with mirror.serving() as server:
        entry, _ = published_elsewhere(config, tmp_path / "made", server.url)
        monkeypatch.setattr(fetch, "entry_for", lambda config: entry)
        with pytest.raises(UserError, match=r"could not be fetched.*HTTP 404"):
            load_dataset(config, tmp_path / "data", download=True)
    assert not raw_folder(tmp_path / "data", config).exists()


def test_nothing_is_downloaded_if_all_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ensure", None)  # calling it would fail
    config, (train, _) = write(tmp_path, "qmnist")
    assert_holds(load_dataset(config, tmp_path, download=True).train, train)


# Damaged and foreign files

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
@pytest.mark.parametrize("name", ["mnist", "qmnist"])
def test_damaged_images(tmp_path: Path, name: str, damage: str) -> None:
    config, _ = write(tmp_path, name)
    path = raw_folder(tmp_path, config) / file_names(config)[0]
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(UserError, match=f"^{path.name} is damaged or another file") as caught:
        load_dataset(config, tmp_path)
    assert f"delete {path} and fetch it again" in str(caught.value)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("name", ["mnist", "qmnist", "emnist_letters"])
def test_each_file_is_checked(tmp_path: Path, name: str, place: int) -> None:
    config, _ = write(tmp_path, name)
    path = raw_folder(tmp_path, config) / file_names(config)[place]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"^{path.name} is damaged"):
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


@pytest.mark.parametrize("name", ["mnist", "qmnist"])
@pytest.mark.parametrize("count", [TRAIN - 1, TRAIN + 1])
def test_images_and_labels_differ_in_number(tmp_path: Path, name: str, count: int) -> None:
    config, _ = write(tmp_path, name)
    labels = np.zeros((count, 8), np.int32) if name == "qmnist" else np.zeros(count, np.uint8)
    path = raw_folder(tmp_path, config) / file_names(config)[1]
    path.write_bytes(idx_bytes(labels))
    with pytest.raises(UserError, match=rf"{TRAIN} images but {count} labels") as caught:
        load_dataset(config, tmp_path)
    assert str(path.parent) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("mnist", 10, r"0\.\.10, outside the 10 outputs"),
        ("qmnist", -1, r"-1\.\.9, outside the 10 outputs"),
        ("emnist_letters", 0, r"-1\.\.25, outside the 26 outputs"),
        ("emnist_letters_62", 62, r"1\.\.62, outside the 62 outputs"),
    ],
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_label_out_of_range(tmp_path: Path, name: str, label: int, message: str, part: str) -> None:
    config, (train, test) = write(tmp_path, name)
    labels = (train if part == "train" else test).labels.astype(np.int32)
    labels[np.flatnonzero(labels == labels.min() + 3)[1]] = label  # another of its class stays
    table = np.tile(labels[:, None], 8) if name == "qmnist" else labels.astype(np.uint8)
    place = 1 if part == "train" else 3
    (raw_folder(tmp_path, config) / file_names(config)[place]).write_bytes(idx_bytes(table))
    with pytest.raises(UserError, match=rf"\({part}\) has labels {message}.*label_offset"):
        load_dataset(config, tmp_path)
