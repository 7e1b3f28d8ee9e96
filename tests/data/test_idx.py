"""The MNIST family: files of the true format, whole, gzipped, damaged, missing and downloaded."""

import gzip
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import mirror
from helpers.composing import composed
from helpers.idx_files import gzip_in_place, idx_bytes, paths, small, written
from torchvision import datasets as tv

from spinal_repro.data import install
from spinal_repro.data.catalog import File, entry_for
from spinal_repro.data.preprocessing import describe_data
from spinal_repro.data.sources import load_dataset
from spinal_repro.data.splits import Split
from spinal_repro.data.torchvision_sets import EMNIST_SPLITS
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
    config, parts, _ = written(tmp_path, name)
    dataset = load_dataset(config, tmp_path)
    assert_holds(dataset, parts, -1 if name == "emnist_letters" else 0)
    classes, first = CLASSES.get(name, 10), int(name == "emnist_letters_62")
    assert dataset.train.labels.unique().tolist() == list(range(first, first + classes))
    assert config.outputs == (62 if name == "emnist_letters_62" else classes)
    if classes == 26:
        names = describe_data(config, dataset, Split(*[np.arange(0)] * 3))["classes"]
        assert (names[first], names[first + 25]) == ("a", "z")


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
    config, parts, files = written(tmp_path, "qmnist")
    packed = [gzip_in_place(path) for path in files[1:]]
    files[0].with_name(f"{files[0].name}.gz").write_bytes(b"not needed")
    assert_holds(load_dataset(config, tmp_path), parts)
    assert len(list(files[0].parent.iterdir())) == 8, "the gzipped files stay"
    files[2].unlink()
    packed[1].write_bytes(packed[1].read_bytes()[:-10])
    message = rf"{packed[1].name} is damaged.*spinal data info qmnist"
    with pytest.raises(UserError, match=message):
        load_dataset(config, tmp_path)
    assert not files[2].exists()


@pytest.mark.parametrize("name", ["qmnist", "emnist_letters_62"])
def test_missing_data_name_the_folder_the_files_and_the_command(tmp_path, name):
    config, root = small(name), tmp_path / "nowhere"
    with pytest.raises(UserError, match=f"spinal-train dataset={name} data.download=true") as error:
        load_dataset(config, root)
    files = paths(root, config)
    for text in (str(files[0].parent), *(path.name for path in files)):
        assert text in str(error.value)
    assert not root.exists()
    *_, files = written(tmp_path, name)
    files[2].unlink()
    with pytest.raises(UserError, match=rf"missing {files[2].name}\)"):
        load_dataset(config, tmp_path)


def test_download(tmp_path, monkeypatch):
    """Files are put where torchvision reads them, beside an interrupted download of its."""
    config, parts, made = written(tmp_path / "made", "emnist_letters")
    packed = {f"gzip/{path.name}.gz": gzip.compress(path.read_bytes()) for path in made}
    served = {"gzip.zip": mirror.zip_of(packed)}
    files = [File(file, md5=mirror.md5(data)) for file, data in served.items()]
    first, *_ = paths(tmp_path / "data", config)
    first.parent.mkdir(parents=True)
    first.with_name(f"{first.name}.gz").write_bytes(b"\x1f\x8b\x08 interrupted")
    with mirror.serving() as server:
        server.files = served
        about = {"mirrors": [server.url], "files": files, "contents": [File(p.name) for p in made]}
        entry = mirror.with_about(entry_for(config), **about)
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


def test_damaged_images(tmp_path):
    config, _, (path, *_) = written(tmp_path, "mnist")
    whole = path.read_bytes()
    for damage in DAMAGE.values():
        path.write_bytes(damage(whole))
        with pytest.raises(UserError, match=rf"^{path.name} is damaged.*delete {path} and run"):
            load_dataset(config, tmp_path)


def labelled(labels, value):
    """Labels with another value for one image of a class that has more."""
    changed = labels.copy()
    changed[np.flatnonzero(labels == labels.min() + 3)[1]] = value
    return changed


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mnist", lambda labels: labels[1:], "60 images but 59 labels"),
        ("mnist", lambda labels: labelled(labels, 10), r"0\.\.10, outside the 10 .*label_offset"),
        ("emnist_letters", lambda labels: labelled(labels, 0), r"-1\.\.25, outside the 26 outputs"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, name, change, message):
    config, (_, test), files = written(tmp_path, name)
    files[3].write_bytes(idx_bytes(change(test.labels)))
    with pytest.raises(UserError, match=message):
        load_dataset(config, tmp_path)


def test_a_test_image_of_a_class_without_a_test_output_is_refused(tmp_path):
    config, _, _ = written(tmp_path, "mnist")
    with pytest.raises(UserError, match=r"\(test\) has labels 0\.\.9, outside the 9 outputs"):
        load_dataset(replace(config, test_outputs=9), tmp_path)
