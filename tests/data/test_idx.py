"""The MNIST family: files of the true format, whole, gzipped, damaged, missing and downloaded."""

import dataclasses
import gzip

import numpy as np
import pytest
import torch
from helpers import mirror
from helpers.composing import composed
from helpers.idx_files import file_names, gzip_in_place, idx_bytes, raw_folder, small, written
from torchvision import datasets as tv

from spinal_repro.data import install
from spinal_repro.data.catalog import File, entry_for
from spinal_repro.data.idx import EMNIST_SPLITS
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import UserError

CLASSES = {"emnist_letters": 26, "emnist_letters_62": 26, "emnist_balanced": 47}
NAMES = ["mnist", "fashion_mnist", "kmnist", "qmnist", "emnist_digits", *CLASSES]


def assert_holds(dataset, parts, offset=0):
    for images, part in zip((dataset.train, dataset.test), parts, strict=True):
        assert (images.images.dtype, images.labels.dtype) == (torch.uint8, torch.int64)
        assert np.array_equal(images.images[:, 0].numpy(), part.images)
        assert np.array_equal(images.labels.numpy(), part.labels.astype(np.int64) + offset)


@pytest.mark.parametrize("name", NAMES)
def test_files_are_loaded(tmp_path, name):
    config, parts = written(tmp_path, name)
    dataset = load_dataset(config, tmp_path)
    assert_holds(dataset, parts, -1 if name == "emnist_letters" else 0)
    classes, first = CLASSES.get(name, 10), int(name == "emnist_letters_62")
    assert dataset.train.labels.unique().tolist() == list(range(first, first + classes))
    assert config.outputs == (62 if name == "emnist_letters_62" else classes)


def test_mnist_is_what_torchvision_reads(real_data):
    ours = load_dataset(composed("dataset=mnist").dataset, real_data)
    for part, train in ((ours.train, True), (ours.test, False)):
        theirs = tv.MNIST(real_data, train=train)
        assert torch.equal(part.images[:, 0], theirs.data)
        assert torch.equal(part.labels, theirs.targets)


def test_emnist_has_the_splits_of_torchvision(tmp_path):
    assert set(EMNIST_SPLITS) == set(tv.EMNIST.splits)
    with pytest.raises(UserError, match=r"dataset\.options\.split.*letters"):
        load_dataset(small("emnist_letters", split="letter"), tmp_path)


def test_gzipped_files_are_unpacked(tmp_path):
    config, parts = written(tmp_path, "qmnist")
    folder, names = raw_folder(tmp_path, config), file_names(config)
    for name in names[1:]:
        gzip_in_place(folder / name)
    (folder / f"{names[0]}.gz").write_bytes(b"not needed")
    assert_holds(load_dataset(config, tmp_path), parts)
    assert {path.name for path in folder.iterdir()} == {*names, *(f"{name}.gz" for name in names)}


def test_a_truncated_gzipped_file(tmp_path):
    config, _ = written(tmp_path, "kmnist")
    folder, name = raw_folder(tmp_path, config), file_names(config)[2]
    packed = gzip_in_place(folder / name)
    packed.write_bytes(packed.read_bytes()[:-10])
    with pytest.raises(UserError, match=rf"{name}\.gz is damaged.*spinal data info kmnist"):
        load_dataset(config, tmp_path)
    assert not (folder / name).exists()


@pytest.mark.parametrize("name", ["qmnist", "emnist_letters_62"])
def test_missing_data_name_the_folder_and_the_command(tmp_path, name):
    config = small(name)
    with pytest.raises(UserError) as caught:
        load_dataset(config, tmp_path / "nowhere")
    message = str(caught.value)
    assert str(raw_folder(tmp_path / "nowhere", config)) in message
    assert f"spinal-train dataset={name} data.download=true" in message
    assert all(file in message for file in file_names(config))
    assert not (tmp_path / "nowhere").exists()


def test_a_single_missing_file_is_named(tmp_path):
    config, _ = written(tmp_path, "mnist")
    path = raw_folder(tmp_path, config) / file_names(config)[2]
    path.unlink()
    with pytest.raises(UserError, match=rf"missing {path.name}\)"):
        load_dataset(config, tmp_path)


def test_download(tmp_path, monkeypatch):
    """Files are put where torchvision reads them, beside an interrupted download of its."""
    config, parts = written(tmp_path / "made", "emnist_letters")
    made, names = raw_folder(tmp_path / "made", config), file_names(config)
    packed = {f"gzip/{n}.gz": gzip.compress((made / n).read_bytes()) for n in names}
    served = {"gzip.zip": mirror.zip_of(packed)}
    entry = entry_for(config)
    files = [File(file, md5=mirror.md5(data)) for file, data in served.items()]
    contents = [File(file.name) for file in entry.contents]
    folder = raw_folder(tmp_path / "data", config)
    folder.mkdir(parents=True)
    (folder / f"{names[0]}.gz").write_bytes(b"\x1f\x8b\x08 interrupted")
    with mirror.serving() as server:
        server.files = served
        about = {"mirrors": [server.url], "files": files, "contents": contents}
        entry = dataclasses.replace(entry, about=dataclasses.replace(entry.about, **about))
        monkeypatch.setattr(install, "entry_for", lambda config: entry)
        for _ in range(2):
            assert_holds(load_dataset(config, tmp_path / "data", download=True), parts, -1)
        assert len(server.asked) == 1


DAMAGE = {
    "header cut": lambda c: c[:7],
    "truncated": lambda c: c[:-1],
    "too long": lambda c: c + b"\0",
    "a web page": lambda c: b"<!DOCTYPE html><html>" + c,
    "still gzipped": gzip.compress,
    "another type": lambda c: b"\0\0\x09" + c[3:],
    "no images": lambda c: c[:4] + bytes(4) + c[8:16],
    "labels": lambda c: idx_bytes(np.zeros(120, np.uint8)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_images(tmp_path, damage):
    config, _ = written(tmp_path, "mnist")
    path = raw_folder(tmp_path, config) / file_names(config)[0]
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(UserError, match=rf"^{path.name} is damaged.*delete {path} and run"):
        load_dataset(config, tmp_path)


def test_images_and_labels_differ_in_number(tmp_path):
    config, _ = written(tmp_path, "qmnist")
    path = raw_folder(tmp_path, config) / file_names(config)[1]
    path.write_bytes(idx_bytes(np.zeros((119, 8), np.int32)))
    with pytest.raises(UserError, match=rf"120 images but 119 labels in {path.parent}"):
        load_dataset(config, tmp_path)


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("mnist", 10, r"0\.\.10, outside the 10 outputs"),
        ("emnist_letters", 0, r"-1\.\.25, outside the 26 outputs"),
    ],
)
def test_label_out_of_range(tmp_path, name, label, message):
    config, (_, test) = written(tmp_path, name)
    labels = test.labels.copy()
    labels[np.flatnonzero(labels == labels.min() + 3)[1]] = label  # another of its class stays
    (raw_folder(tmp_path, config) / file_names(config)[3]).write_bytes(idx_bytes(labels))
    with pytest.raises(UserError, match=rf"\(test\) has labels {message}.*label_offset"):
        load_dataset(config, tmp_path)
