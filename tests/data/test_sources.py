"""Data sets read from files in their true format, and every way such files can be wrong."""

import dataclasses
import functools
import gzip
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mirror
import numpy as np
import pytest
import torch
from idx_files import (
    Part,
    file_names,
    gzip_in_place,
    idx_bytes,
    make_part,
    raw_folder,
    write_dataset,
)

from spinal_repro.config import compose, config_dir
from spinal_repro.data import fetch
from spinal_repro.data.catalog import Entry, File, entry_for
from spinal_repro.data.idx_files import check_idx
from spinal_repro.data.sources import (
    MAX_ENLARGED,
    SOURCES,
    Dataset,
    ImageSet,
    load_dataset,
    load_sources,
)
from spinal_repro.errors import UserError
from spinal_repro.schema import DatasetConfig

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


def small(name: str, train: int = TRAIN, test: int = TEST) -> DatasetConfig:
    """The shipped configuration of a data set, with the sizes of the files written here."""
    return dataclasses.replace(shipped(name), train_size=train, test_size=test)


def write(root: Path, name: str) -> tuple[DatasetConfig, tuple[Part, Part]]:
    config = small(name)
    return config, write_dataset(root, config, TRAIN, TEST)


def assert_holds(images: ImageSet, part: Part, offset: int = 0) -> None:
    assert (images.images.dtype, images.labels.dtype) == (torch.uint8, torch.int64)
    assert np.array_equal(images.images[:, 0].numpy(), part.images)
    assert np.array_equal(images.labels.numpy(), part.labels.astype(np.int64) + offset)


# What is loaded


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


def test_digits_follow_the_configured_size() -> None:
    config = dataclasses.replace(shipped("digits"), image_size=8)
    from sklearn.datasets import load_digits

    images = load_dataset(config, "unused").train.images
    known = {(i * 255 / 16 + 1e-6).round().astype(np.uint8).tobytes() for i in load_digits().images}
    known |= {np.rint(i * 255 / 16).astype(np.uint8).tobytes() for i in load_digits().images}
    assert all(image.numpy().tobytes() in known for image in images)


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_files_are_loaded(tmp_path: Path, name: str) -> None:
    config, (train, test) = write(tmp_path, name)
    dataset = load_dataset(config, tmp_path)
    offset = -1 if name == "emnist_letters" else 0
    assert_holds(dataset.train, train, offset)
    assert_holds(dataset.test, test, offset)
    classes, first = CLASSES.get(name, 10), int(name == "emnist_letters_62")
    assert dataset.train.labels.unique().tolist() == list(range(first, first + classes))
    assert dataset.train.labels.max() < config.outputs


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_shipped_sizes_are_the_published_ones(name: str) -> None:
    config = shipped(name)
    assert (config.train_size, config.test_size) == PUBLISHED_SIZES[name]
    assert config.num_classes == CLASSES.get(name, 10)
    assert config.outputs == (62 if name == "emnist_letters_62" else config.num_classes)
    assert (config.image_size, config.channels) == (28, 1)
    assert config.name == name


def test_both_readings_of_letters_share_one_set_of_files(tmp_path: Path) -> None:
    write(tmp_path, "emnist_letters")
    shifted = load_dataset(small("emnist_letters"), tmp_path)
    original = load_dataset(small("emnist_letters_62"), tmp_path)
    assert torch.equal(shifted.train.labels + 1, original.train.labels)
    assert torch.equal(shifted.train.images, original.train.images)


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


def test_published_mnist(real_data: Path) -> None:
    dataset = load_dataset(shipped("mnist"), real_data)
    assert dataset.train.images.shape == (60_000, 1, 28, 28)
    assert dataset.test.images.shape == (10_000, 1, 28, 28)
    train, test = dataset.train.labels.bincount(), dataset.test.labels.bincount()
    # class sizes and pixel statistics as widely published for MNIST
    assert train.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pixels = dataset.train.images.double() / 255
    assert float(pixels.mean()) == pytest.approx(0.1307, abs=5e-5)
    assert float(pixels.std()) == pytest.approx(0.3081, abs=5e-5)


def test_every_source_is_configured() -> None:
    names = [path.stem for path in (config_dir() / "dataset").glob("*.yaml")]
    assert {shipped(name).source for name in names} == set(load_sources().names())


def test_digits_need_no_torchvision() -> None:
    """Importing it takes as long as all of torch; the default run does without."""
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from spinal_repro.config import compose\n"
        "from spinal_repro.training.run import load_dataset\n"
        "print(len(load_dataset(compose([]).dataset, 'data').train))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1438", done.stderr


# Missing data and downloads


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


@pytest.mark.parametrize("place", range(4))
def test_a_single_missing_file_is_named(tmp_path: Path, place: int) -> None:
    config, _ = write(tmp_path, "mnist")
    names = file_names(config)
    (raw_folder(tmp_path, config) / names[place]).unlink()
    with pytest.raises(UserError, match=rf"missing {names[place]}\)"):
        load_dataset(config, tmp_path)


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


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
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


def test_damage_is_told_before_the_rest_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ensure", None)
    config, _ = write(tmp_path, "emnist_digits")
    images, labels, test_images, _ = (raw_folder(tmp_path, config) / n for n in file_names(config))
    images.write_bytes(labels.read_bytes())
    test_images.unlink()
    with pytest.raises(UserError, match=rf"{images.name} holds 1-dimensional"):
        load_dataset(config, tmp_path, download=True)


@pytest.mark.parametrize("name", ["digits", "mnist", "emnist_digits", "cifar10", "svhn", "stl10"])
def test_unknown_options_are_refused(tmp_path: Path, name: str) -> None:
    config = shipped(name)
    config = dataclasses.replace(config, options={**config.options, "splti": 1})
    with pytest.raises(UserError, match=f"no option of the data set {name} 'splti'"):
        load_dataset(config, tmp_path)


# Damaged files


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * share)]


def with_sizes(*sizes: int) -> Callable[[bytes], bytes]:
    """Another header over the same values."""
    return lambda content: content[:4] + np.array(sizes, dtype=">u4").tobytes() + content[16:]


IMAGE_DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "half": (cut(0.5), r"is damaged: 47,\d\d\d bytes where its header says 94,096"),
    "one byte short": (lambda c: c[:-1], r"is damaged: 94,095 bytes where its header says 94,096"),
    "one byte long": (
        lambda c: c + b"\0",
        r"is damaged: 94,097 bytes where its header says 94,096",
    ),
    "twice": (lambda c: c + c, r"is damaged: 188,192 bytes where its header says 94,096"),
    "empty": (lambda c: b"", r"is not an idx file"),
    "three bytes": (lambda c: c[:3], r"is not an idx file"),
    "magic number only": (lambda c: c[:4], r"is cut short in its header"),
    "cut in the header": (lambda c: c[:13], r"is cut short in its header"),
    "header only": (lambda c: c[:16], r"is damaged: 16 bytes where its header says 94,096"),
    "a web page": (lambda c: b"<!DOCTYPE html><html>" + c, r"is not an idx file.*3c21444f"),
    "still gzipped": (gzip.compress, r"is not an idx file.*1f8b"),
    "unknown type": (lambda c: b"\0\0\x0a\x03" + c[4:], r"is not an idx file"),
    "no dimensions": (lambda c: b"\0\0\x08\0" + c[4:], r"is not an idx file"),
    "nine dimensions": (lambda c: b"\0\0\x08\x09" + c[4:], r"is not an idx file"),
    "signed bytes": (lambda c: b"\0\0\x09\x03" + c[4:], r"holds 3-dimensional int8"),
    "flat": (
        lambda c: idx_bytes(np.frombuffer(c[16:], np.uint8)),
        r"holds 1-dimensional uint8 data where its name says 3-dimensional uint8",
    ),
    "colour": (
        lambda c: idx_bytes(np.frombuffer(c[16:], np.uint8).reshape(-1, 28, 28, 1)),
        r"holds 4-dimensional uint8",
    ),
    "no images": (lambda c: idx_bytes(np.zeros((0, 28, 28), np.uint8)), r"holds nothing"),
    "no pixels": (lambda c: idx_bytes(np.zeros((TRAIN, 0, 28), np.uint8)), r"holds nothing"),
    "absurd sizes": (with_sizes(2**32 - 1, 2**32 - 1, 2**32 - 1), r"is damaged: 94,096 bytes"),
    "more images said": (
        with_sizes(TRAIN + 1, 28, 28),
        r"is damaged: .* where its header says 94,880",
    ),
}


@pytest.mark.parametrize("damage", IMAGE_DAMAGE)
@pytest.mark.parametrize("name", ["mnist", "emnist_digits", "qmnist"])
def test_damaged_images(tmp_path: Path, name: str, damage: str) -> None:
    config, _ = write(tmp_path, name)
    path = raw_folder(tmp_path, config) / file_names(config)[0]
    change, message = IMAGE_DAMAGE[damage]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=f"^{path.name} {message}") as caught:
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


@pytest.mark.parametrize("name", ["fashion_mnist", "qmnist", "emnist_letters"])
def test_images_and_labels_exchanged(tmp_path: Path, name: str) -> None:
    config, _ = write(tmp_path, name)
    images, labels = (raw_folder(tmp_path, config) / n for n in file_names(config)[:2])
    content = images.read_bytes()
    images.write_bytes(labels.read_bytes())
    labels.write_bytes(content)
    with pytest.raises(UserError, match=f"{images.name} holds [12]-dimensional .*its name"):
        load_dataset(config, tmp_path)


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("mnist", np.zeros(TRAIN, np.int32), "1-dimensional int32"),
        ("mnist", np.zeros((TRAIN, 1), np.uint8), "2-dimensional uint8"),
        ("qmnist", np.zeros(TRAIN, np.int32), "1-dimensional int32"),
        ("qmnist", np.zeros((TRAIN, 8), np.uint8), "2-dimensional uint8"),
        ("qmnist", np.zeros((TRAIN, 0), np.int32), "holds nothing"),
        ("mnist", np.zeros(0, np.uint8), "holds nothing"),
    ],
)
def test_labels_of_another_kind(
    tmp_path: Path, name: str, labels: np.ndarray, message: str
) -> None:
    config, _ = write(tmp_path, name)
    path = raw_folder(tmp_path, config) / file_names(config)[1]
    path.write_bytes(idx_bytes(labels))
    with pytest.raises(UserError, match=rf"^{path.name} .*{message}"):
        load_dataset(config, tmp_path)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:-8], "is damaged"),  # the end of the stream and its checksum are missing
        (lambda c: c[: len(c) // 2], "is damaged"),
        (lambda c: b"PK" + c[2:], "is damaged"),  # another kind of archive
        (lambda c: c[:-8] + b"\1\2\3\4" + c[-4:], "is damaged"),  # wrong checksum
        (lambda c: c[:20] + b"\xff" * 40 + c[60:], "is damaged"),  # invalid deflate data
        (lambda c: b"", "is not an idx file"),
    ],
    ids=["no end", "half", "no gzip", "checksum", "deflate", "empty"],
)
def test_damaged_gzip(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str, place: int
) -> None:
    config, _ = write(tmp_path, "mnist")
    folder, name = raw_folder(tmp_path, config), file_names(config)[place]
    packed = gzip_in_place(folder / name)
    packed.write_bytes(change(packed.read_bytes()))
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(config, tmp_path)
    assert name in str(caught.value) and "fetch it again" in str(caught.value)
    if packed.stat().st_size:  # half a file must not be taken for a whole one next time
        assert {p.name for p in folder.iterdir()} == {*file_names(config), packed.name} - {name}


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = write(tmp_path, "mnist")
    path = raw_folder(tmp_path, config) / file_names(config)[2]
    opened = Path.open

    def refuse(self: Path, *args: object, **kwargs: object) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        UserError, match=rf"{re.escape(str(path))} cannot be read: .*Permission denied"
    ):
        load_dataset(config, tmp_path)


def test_read_only_folder_of_gzipped_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = write(tmp_path, "mnist")
    packed = gzip_in_place(raw_folder(tmp_path, config) / file_names(config)[0])
    opened = Path.open

    def refuse(self: Path, mode: str = "r", **kwargs: object) -> object:
        if "w" in mode:
            raise OSError(30, "Read-only file system", str(self))
        return opened(self, mode, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        UserError, match=rf"{re.escape(str(packed))} cannot be unpacked: .*Read-only"
    ):
        load_dataset(config, tmp_path)


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    config, _ = write(tmp_path, "mnist")
    path = raw_folder(tmp_path, config) / file_names(config)[0]
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=rf"missing {path.name}"):
        load_dataset(config, tmp_path)


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for download in (False, True):
        with pytest.raises(UserError, match="MNIST"):
            load_dataset(small("mnist"), tmp_path / "file", download)


def test_files_of_an_old_torchvision_are_not_read(tmp_path: Path) -> None:
    """torchvision before 0.9 left a folder ``processed``, which it would still read first."""
    config, (train, _) = write(tmp_path, "mnist")
    processed = tmp_path / "MNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        (processed / name).write_bytes(b"not what torch.save writes")
    assert_holds(load_dataset(config, tmp_path).train, train)


# Whole files that are not what is expected


@pytest.mark.parametrize(("part", "sizes"), [("train", (TRAIN + 1, TEST)), ("test", (TRAIN, 10))])
def test_wrong_number_of_images(tmp_path: Path, part: str, sizes: tuple[int, int]) -> None:
    write(tmp_path, "kmnist")
    found, expected = (TRAIN, TRAIN + 1) if part == "train" else (TEST, 10)
    with pytest.raises(UserError, match=rf"has {found} images where {expected}") as caught:
        load_dataset(small("kmnist", *sizes), tmp_path)
    assert f"({part})" in str(caught.value)
    assert f"dataset.{part}_size={found}" in str(caught.value)
    # the remedy that is named works
    remedy = f"dataset.{part}_size={found}"
    other = ("test_size", TEST) if part == "train" else ("train_size", TRAIN)
    mended = compose(["dataset=kmnist", remedy, f"dataset.{other[0]}={other[1]}"]).dataset
    assert isinstance(load_dataset(mended, tmp_path), Dataset)


@pytest.mark.parametrize("shape", [(28, 27), (32, 32), (1, 784)])
def test_wrong_image_size(tmp_path: Path, shape: tuple[int, int]) -> None:
    config, _ = write(tmp_path, "mnist")
    path = raw_folder(tmp_path, config) / file_names(config)[2]
    path.write_bytes(idx_bytes(np.zeros((TEST, *shape), np.uint8)))
    with pytest.raises(UserError, match=rf"\(test\).*1x{shape[0]}x{shape[1]}, expected 1x28x28"):
        load_dataset(config, tmp_path)


def test_grey_images_on_three_channels(tmp_path: Path) -> None:
    config, _ = write(tmp_path, "mnist")
    grey = load_dataset(config, tmp_path).train.images
    colour = load_dataset(dataclasses.replace(config, channels=3), tmp_path).train.images
    assert colour.shape == (len(grey), 3, 28, 28)
    assert all(torch.equal(colour[:, channel], grey[:, 0]) for channel in range(3))
    with pytest.raises(UserError, match=r"1x28x28, expected 2x28x28"):
        load_dataset(dataclasses.replace(config, channels=2), tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.full((4, 1, 28, 28), torch.nan), torch.arange(4), "pixels of torch.float32"),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.arange(4.0), "labels of"),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.arange(3), "3 labels for images"),
        (torch.zeros(0, 1, 28, 28, dtype=torch.uint8), torch.arange(0), "holds no images"),
    ],
)
def test_sources_that_give_something_else(images, labels, message, monkeypatch):
    part = ImageSet(images, labels)
    monkeypatch.setitem(SOURCES._items, "odd", lambda *given: Dataset(part, part))
    config = dataclasses.replace(compose([]).dataset, source="odd", train_size=None, test_size=None)
    with pytest.raises(UserError, match=message):
        load_dataset(config, "unused")


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("mnist", 10, r"0\.\.10, outside the 10 outputs"),
        ("mnist", 255, r"0\.\.255, outside the 10 outputs"),
        ("qmnist", -1, r"-1\.\.9, outside the 10 outputs"),
        ("emnist_letters", 0, r"-1\.\.25, outside the 26 outputs"),
        ("emnist_letters", 27, r"0\.\.26, outside the 26 outputs"),
        ("emnist_letters_62", 62, r"1\.\.62, outside the 62 outputs"),
        ("emnist_balanced", 47, r"0\.\.47, outside the 47 outputs"),
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
    with pytest.raises(UserError, match=rf"\({part}\) has labels {message}") as caught:
        load_dataset(config, tmp_path)
    assert "dataset.label_offset" in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "qmnist", "emnist_digits"])
@pytest.mark.parametrize("count", [TRAIN - 1, TRAIN + 1, 1])
def test_images_and_labels_differ_in_number(tmp_path: Path, name: str, count: int) -> None:
    config, _ = write(tmp_path, name)
    labels = np.zeros((count, 8), np.int32) if name == "qmnist" else np.zeros(count, np.uint8)
    path = raw_folder(tmp_path, config) / file_names(config)[1]
    path.write_bytes(idx_bytes(labels))
    with pytest.raises(UserError, match=rf"{TRAIN} images but {count} labels") as caught:
        load_dataset(config, tmp_path)
    assert str(path.parent) in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"split": "letter"}, {"split": None}])
def test_unknown_emnist_split(tmp_path: Path, options: dict) -> None:
    config = dataclasses.replace(small("emnist_letters"), options=options)
    with pytest.raises(UserError, match=r"dataset\.options\.split.*letters"):
        load_dataset(config, tmp_path)


def test_unknown_source(tmp_path: Path) -> None:
    config = dataclasses.replace(small("mnist"), source="mnits")
    with pytest.raises(UserError, match="no data source 'mnits'; did you mean 'mnist'"):
        load_dataset(config, tmp_path)


# check_idx


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32"])
@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 3, 2), (2, 3, 2, 2)])
def test_check_idx_returns_the_shape(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / "file"
    content = idx_bytes(np.ones(shape, dtype))
    path.write_bytes(content)
    assert check_idx(path) == shape
    for wrong in (content[:-1], content + b"\0"):
        path.write_bytes(wrong)
        with pytest.raises(UserError, match=f"{len(wrong)} bytes .* says {len(content)}"):
            check_idx(path)


def test_check_idx_reads_the_kind_from_the_name(tmp_path: Path) -> None:
    named = {
        "a-images-idx3-ubyte": np.ones((2, 3, 3), np.uint8),
        "a-labels-idx1-ubyte": np.ones(2, np.uint8),
        "a-labels-idx2-int": np.ones((2, 8), np.int32),
    }
    for name, right in named.items():
        for array in named.values():
            path = tmp_path / name
            path.write_bytes(idx_bytes(array))
            if array is right:
                assert check_idx(path) == right.shape
            else:
                with pytest.raises(UserError, match=f"{name} holds {array.ndim}-dimensional"):
                    check_idx(path)


@pytest.mark.parametrize("side", [None, MAX_ENLARGED + 1])
def test_digits_are_enlarged_to_what_memory_holds(side):
    config = dataclasses.replace(compose(["dataset=digits"]).dataset, image_size=side)
    with pytest.raises(UserError, match=rf"dataset\.image_size, at most {MAX_ENLARGED} px, got"):
        load_dataset(config, "unused")


def test_an_empty_idx_file_is_called_empty(tmp_path):
    (tmp_path / "x-idx1-ubyte").touch()
    with pytest.raises(UserError, match=r"is not an idx file \(it is empty\)"):
        check_idx(tmp_path / "x-idx1-ubyte")


def test_images_that_no_memory_holds(tmp_path, finite_memory):
    """A sparse file of 5 TB, as long as its header says."""
    config = compose(["dataset=mnist"]).dataset
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind, sizes in (("images-idx3", (60_000, 9_000, 9_000)), ("labels-idx1", (60_000,))):
            with (folder / f"{part}-{kind}-ubyte").open("wb") as file:
                file.write(bytes([0, 0, 8, len(sizes)]))
                file.write(b"".join(size.to_bytes(4, "big") for size in sizes))
                try:
                    file.truncate(file.tell() + math.prod(sizes))
                except OSError:
                    pytest.skip("this file system has no files of that size")
    with pytest.raises(UserError, match="MNIST cannot be read from"):
        load_dataset(config, tmp_path)
