"""Sources in general: scikit-learn's digits, and what is checked of every data set."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers.composing import composed
from helpers.idx_files import idx_bytes, written
from sklearn.datasets import load_digits

from spinal_repro.config.compose import compose, config_dir
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, load_dataset, load_sources
from spinal_repro.errors import UserError


def shipped(name):
    return composed(f"dataset={name}").dataset


def test_digits():
    """Every image is in one part, a stratified fifth in test; brightness is kept (0..16 there)."""
    dataset, published = load_dataset(shipped("digits"), "unused"), load_digits()
    parts = dataset.train, dataset.test
    assert [tuple(part.images.shape) for part in parts] == [(1438, 1, 28, 28), (359, 1, 28, 28)]
    assert {part.images.dtype for part in parts} == {torch.uint8}
    counts = np.bincount(published.target)
    assert torch.cat([part.labels for part in parts]).bincount().tolist() == counts.tolist()
    assert (np.abs(dataset.test.labels.bincount().numpy() - counts / 5) <= 0.5).all()
    mean = torch.cat([part.images for part in parts]).float().mean()
    assert mean == pytest.approx(published.images.mean() * 255 / 16, rel=0.02)
    again = load_dataset(shipped("digits"), "unused")
    assert torch.equal(dataset.train.images, again.train.images)


def test_every_source_is_configured():
    names = [path.stem for path in (config_dir() / "dataset").glob("*.yaml")]
    assert {shipped(name).source for name in names} == set(load_sources().names())


@pytest.mark.parametrize("name", ["digits", "mnist", "emnist_digits", "cifar10", "svhn", "stl10"])
def test_unknown_options_are_refused(tmp_path, name):
    config = shipped(name)
    config = dataclasses.replace(config, options={**config.options, "splti": 1})
    with pytest.raises(UserError, match=f"no option of the data set {name} 'splti'"):
        load_dataset(config, tmp_path)


def test_parts_of_another_size(tmp_path):
    config, _, files = written(tmp_path, "kmnist")
    for part, found in (("train", 120), ("test", 60)):
        message = rf"\({part}\) has {found} images, expected.*set dataset\.{part}_size={found}"
        with pytest.raises(UserError, match=message):
            load_dataset(dataclasses.replace(config, **{f"{part}_size": found + 1}), tmp_path)
    files[2].write_bytes(idx_bytes(np.zeros((60, 28, 27), np.uint8)))
    with pytest.raises(UserError, match=r"\(test\).*1, 28, 27\].*expected.*1, 28, 28\]"):
        load_dataset(config, tmp_path)


def test_grey_images_on_three_channels(monkeypatch) -> None:
    part = ImageSet(torch.arange(4).byte().view(4, 1, 1, 1).repeat(1, 1, 28, 28), torch.arange(4))
    monkeypatch.setitem(SOURCES._items, "odd", lambda *given: Dataset(part, part, part))
    sizes = {"train_size": 4, "test_size": 4, "val_size": 4}
    config = dataclasses.replace(shipped("digits"), source="odd", channels=3, **sizes)
    dataset = load_dataset(config, "unused")
    for found in (dataset.train, dataset.val, dataset.test):
        assert torch.equal(found.images, part.images.expand(-1, 3, -1, -1))
    with pytest.raises(UserError, match=r"4, 1, 28, 28\].*expected.*4, 2, 28, 28\]"):
        load_dataset(dataclasses.replace(config, channels=2), "unused")


def test_a_yaml_file_alone_adds_a_data_set(tmp_path):
    """For a reader that exists; another source is refused."""
    written(tmp_path, "mnist")
    (tmp_path / "MNIST").rename(tmp_path / "Mine")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/mine.yaml").write_text(
        "{name: mine, title: Mine, source: mnist, options: {folder: Mine/raw}, num_classes: 10, "
        "image_size: 28, channels: 1, train_size: 120, test_size: 60}"
    )
    config = compose(["dataset=mine"], tmp_path).dataset
    assert len(load_dataset(config, tmp_path).train) == 120
    with pytest.raises(UserError, match="no data source 'mnits'; did you mean 'mnist'"):
        load_dataset(dataclasses.replace(config, source="mnits"), tmp_path)


IMAGES = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.float(), torch.arange(4), "of torch.float32"),
        (IMAGES, torch.arange(4.0), r"labels \[4\] of torch.float32"),
        (IMAGES, torch.arange(3), r"images \[4.* labels \[3\] of"),
        (IMAGES[:0], torch.arange(0), "has no images"),
    ],
)
def test_sources_that_give_something_else(images, labels, message, monkeypatch):
    part = ImageSet(images, labels)
    monkeypatch.setitem(SOURCES._items, "odd", lambda *given: Dataset(part, part))
    config = dataclasses.replace(shipped("digits"), source="odd", train_size=None, test_size=None)
    with pytest.raises(UserError, match=message):
        load_dataset(config, "unused")
