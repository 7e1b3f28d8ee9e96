"""CIFAR: files of torchvision's layout, faked with their sums."""

import hashlib
import pickle

import numpy as np
import pytest
from torchvision import datasets as tv

from spinal_repro.config import compose
from spinal_repro.data import cifar
from spinal_repro.data.sources import check_sums, load_dataset
from spinal_repro.errors import UserError

KINDS = {"cifar10": (tv.CIFAR10, b"labels"), "cifar100": (tv.CIFAR100, b"fine_labels")}


@pytest.fixture(params=list(KINDS))
def files(request, tmp_path, monkeypatch):
    """A data set of four images a file; pixel (0, 0) has the values 1, 2, 3."""
    kind, labels = KINDS[request.param]
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    images = np.zeros((4, 3, 32, 32), np.uint8)
    images[:, :, 0, 0] = [1, 2, 3]
    images[:, 0, 0, 1] = 9

    def write(name, content):
        data = pickle.dumps(content, protocol=2)  # that of the published files
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(name):
        flat = images.reshape(4, -1)
        return write(name, {"data": flat, labels.decode(): [0, 1, 2, 3]})

    monkeypatch.setattr(kind, "train_list", [batch(name) for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [batch(name) for name, _ in kind.test_list])
    meta = dict(kind.meta)
    name, md5 = write(meta["filename"], {meta["key"]: ["a", "b", "c", "d"]})
    monkeypatch.setattr(kind, "meta", {**meta, "md5": md5})
    config = compose(
        [
            f"dataset={request.param}", f"dataset.train_size={4 * len(kind.train_list)}",
            "dataset.test_size=4",
        ]
    ).dataset  # fmt: skip
    return config, tmp_path, folder, name


def test_images_are_channels_first(files):
    config, root, _, _ = files
    dataset = load_dataset(config, root)
    assert dataset.train.images.shape[1:] == (3, 32, 32)
    assert dataset.train.images[0, :, 0, 0].tolist() == [1, 2, 3]
    assert dataset.test.images[0, 0, 0, :3].tolist() == [1, 9, 0]
    assert dataset.test.labels.tolist() == [0, 1, 2, 3]


def test_what_is_missing_is_named(files):
    config, root, folder, name = files
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"missing {name}.*data.download=true"):
        load_dataset(config, root)


def test_a_changed_file_is_refused_before_it_is_unpickled(files):
    config, root, folder, name = files
    (folder / name).write_bytes(b"cposix\nsystem\n(S'false'\ntR.")
    with pytest.raises(UserError, match=f"{name} is damaged"):
        load_dataset(config, root)


def test_a_file_that_is_changed_after_it_was_checked_is_refused(files, monkeypatch):
    """Between the check of all files and the reading of one, somebody may write."""
    config, root, folder, name = files

    def change(*arguments):
        check_sums(*arguments)
        (folder / name).write_bytes(pickle.dumps({"label_names": ["other"]}, protocol=2))

    monkeypatch.setattr(cifar, "check_sums", change)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        load_dataset(config, root)
