"""Sources in general: scikit-learn's digits, and what is checked of every data set."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.composing import composed
from helpers.idx_files import file_names, idx_bytes, raw_folder, write_dataset

from spinal_repro.config.compose import compose, config_dir
from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, load_dataset, load_sources
from spinal_repro.errors import UserError

TRAIN, TEST = 120, 60


def shipped(name: str) -> DatasetConfig:
    return composed(f"dataset={name}").dataset


def small(name: str, train: int = TRAIN, test: int = TEST) -> DatasetConfig:
    """The shipped configuration of a data set, with the sizes of the files written here."""
    return dataclasses.replace(shipped(name), train_size=train, test_size=test)


def write(root: Path, name: str) -> DatasetConfig:
    config = small(name)
    write_dataset(root, config, TRAIN, TEST)
    return config


def test_digits() -> None:
    from sklearn.datasets import load_digits

    config = shipped("digits")
    dataset = load_dataset(config, "unused")
    assert (len(dataset.train), len(dataset.test)) == (1438, 359)
    for part in (dataset.train, dataset.test):
        assert part.images.dtype == torch.uint8
        assert tuple(part.images.shape[1:]) == (1, 28, 28)
        assert part.labels.unique().tolist() == list(range(10))
    published = np.bincount(load_digits().target)
    assert published.sum() == 1438 + 359, "every image is in one of the parts"
    together = torch.cat([dataset.train.labels, dataset.test.labels]).bincount()
    assert together.tolist() == published.tolist()
    assert (np.abs(dataset.test.labels.bincount().numpy() - published / 5) <= 0.5).all()
    # enlarging keeps brightness (0..16 there, 0..255 here)
    mean = torch.cat([dataset.train.images, dataset.test.images]).float().mean()
    assert mean == pytest.approx(load_digits().images.mean() * 255 / 16, rel=0.02)
    again = load_dataset(config, "unused")
    assert torch.equal(dataset.train.images, again.train.images)


def test_every_source_is_configured() -> None:
    names = [path.stem for path in (config_dir() / "dataset").glob("*.yaml")]
    assert {shipped(name).source for name in names} == set(load_sources().names())


def test_digits_need_no_torchvision() -> None:
    """Importing it takes as long as all of torch; the default run does without."""
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from spinal_repro.config.compose import compose\n"
        "from spinal_repro.data.sources import load_dataset\n"
        "print(len(load_dataset(compose([]).dataset, 'data').train))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1438", done.stderr


@pytest.mark.parametrize("name", ["digits", "mnist", "emnist_digits", "cifar10", "svhn", "stl10"])
def test_unknown_options_are_refused(tmp_path: Path, name: str) -> None:
    config = shipped(name)
    config = dataclasses.replace(config, options={**config.options, "splti": 1})
    with pytest.raises(UserError, match=f"no option of the data set {name} 'splti'"):
        load_dataset(config, tmp_path)


@pytest.mark.parametrize(("part", "sizes"), [("train", (TRAIN + 1, TEST)), ("test", (TRAIN, 10))])
def test_wrong_number_of_images(tmp_path: Path, part: str, sizes: tuple[int, int]) -> None:
    write(tmp_path, "kmnist")
    found, expected = (TRAIN, TRAIN + 1) if part == "train" else (TEST, 10)
    message = rf"\({part}\) has {found} images where {expected}.*pass dataset\.{part}_size={found}"
    with pytest.raises(UserError, match=message):
        load_dataset(small("kmnist", *sizes), tmp_path)


@pytest.mark.parametrize("shape", [(28, 27), (32, 32)])
def test_wrong_image_size(tmp_path: Path, shape: tuple[int, int]) -> None:
    config = write(tmp_path, "mnist")
    path = raw_folder(tmp_path, config) / file_names(config)[2]
    path.write_bytes(idx_bytes(np.zeros((TEST, *shape), np.uint8)))
    with pytest.raises(UserError, match=rf"\(test\).*1x{shape[0]}x{shape[1]}, expected 1x28x28"):
        load_dataset(config, tmp_path)


def test_grey_images_on_three_channels(tmp_path: Path) -> None:
    config = write(tmp_path, "mnist")
    grey = load_dataset(config, tmp_path).train.images
    colour = load_dataset(dataclasses.replace(config, channels=3), tmp_path).train.images
    assert colour.shape == (len(grey), 3, 28, 28)
    assert all(torch.equal(colour[:, channel], grey[:, 0]) for channel in range(3))
    with pytest.raises(UserError, match=r"1x28x28, expected 2x28x28"):
        load_dataset(dataclasses.replace(config, channels=2), tmp_path)


def test_a_grey_validation_part_on_three_channels(monkeypatch) -> None:
    part = ImageSet(torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.arange(4))
    monkeypatch.setitem(SOURCES._items, "odd", lambda *given: Dataset(part, part, part))
    config = dataclasses.replace(
        shipped("digits"), source="odd", channels=3, train_size=4, test_size=4, val_size=4
    )
    assert load_dataset(config, "unused").val.images.shape == (4, 3, 28, 28)


def test_a_yaml_file_alone_adds_a_data_set(tmp_path: Path) -> None:
    """For a reader that exists; another source is refused."""
    write(tmp_path, "mnist")
    (tmp_path / "MNIST").rename(tmp_path / "Mine")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/mine.yaml").write_text(
        "{name: mine, title: Mine, source: mnist, options: {folder: Mine/raw}, num_classes: 10, "
        f"image_size: 28, channels: 1, train_size: {TRAIN}, test_size: {TEST}}}"
    )
    config = compose(["dataset=mine"], tmp_path).dataset
    assert len(load_dataset(config, tmp_path).train) == TRAIN
    with pytest.raises(UserError, match="no data source 'mnits'; did you mean 'mnist'"):
        load_dataset(dataclasses.replace(config, source="mnits"), tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.full((4, 1, 28, 28), torch.nan), torch.arange(4), "pixels of torch.float32"),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.arange(4.0), "labels of"),
        (
            torch.zeros(4, 1, 28, 28, dtype=torch.uint8),
            torch.arange(3),
            r"labels of .* \[3\] for images",
        ),
        (torch.zeros(0, 1, 28, 28, dtype=torch.uint8), torch.arange(0), "has no images"),
    ],
)
def test_sources_that_give_something_else(images, labels, message, monkeypatch):
    part = ImageSet(images, labels)
    monkeypatch.setitem(SOURCES._items, "odd", lambda *given: Dataset(part, part))
    config = dataclasses.replace(compose([]).dataset, source="odd", train_size=None, test_size=None)
    with pytest.raises(UserError, match=message):
        load_dataset(config, "unused")
