"""Image files: decoded as torchvision does, cached by content, unreadable ones named together."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.composing import composed
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize
from torchvision.transforms import functional as tvf

from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.config.schema import Config
from spinal_repro.data import photos as module
from spinal_repro.data.augment import HorizontalFlip, ResizedCrop
from spinal_repro.data.loader import Batches
from spinal_repro.data.photos import Photos, read_image
from spinal_repro.data.preprocessing import batches_of, split_dataset
from spinal_repro.data.sources import Dataset, ImageSet, load_dataset
from spinal_repro.data.splits import Split
from spinal_repro.errors import UserError
from spinal_repro.seeds import stream_seed

CPU = torch.device("cpu")
SQUARE = Preprocessing(resize=12, crop=10)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Nine images of noise in three shapes."""
    random = np.random.default_rng(0)
    made = []
    for index in range(9):
        height, width = ((20, 31), (25, 14), (16, 16))[index % 3]
        path = tmp_path / f"{index}.png"
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        made.append(path)
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def photos(files: list[Path]) -> Photos:
    return Photos(files, torch.arange(len(files)) % 2, 3)


def cached(cache: Path) -> list[Path]:
    """The files in a cache, without locks."""
    return sorted(path for path in cache.glob("*") if path.suffix != ".lock")


def prepared(option: dict[str, Any]) -> Config:
    """A configuration with other preprocessing of training images, in batches of four."""
    recipe = replace(composed().recipe, prepare={"train": option}, batch_size=4)
    return replace(composed(), recipe=recipe)


@pytest.mark.parametrize("option", [{"interpolation": "bicubic", "resize": 32}, {"fit": 32}])
def test_images_in_memory_are_not_resized_as_files_are(cache, option):
    dataset = load_dataset(composed().dataset, "unused")
    config = prepared(option)
    split = split_dataset(dataset, config.protocol)
    with pytest.raises(UserError, match="image files only"):
        batches_of(config, dataset, split, "train", runs=cache, device=CPU, training=True)


@pytest.mark.parametrize("resize", [12, [12, 17], 40])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_geometry_is_torchvisions(files, resize, interpolation):
    preprocessing = Preprocessing(resize=resize, crop=10, interpolation=interpolation)
    reference = Compose([Resize(resize, InterpolationMode(interpolation)), CenterCrop(10)])
    for path in files:
        expected = np.asarray(reference(Image.open(path))).transpose(2, 0, 1)
        assert np.array_equal(read_image(path, 3, preprocessing), expected)


def test_every_kind_of_image_becomes_colour_or_grey(tmp_path):
    grey = Image.fromarray(np.full((12, 12), 100, np.uint8))
    clear = Image.new("RGBA", (12, 12), (10, 20, 30, 0))
    deep = Image.fromarray(np.full((12, 12), 100 * 257, np.uint16))
    kinds = {  # and the mean level
        "grey.png": (grey, 100),
        "palette.png": (grey.convert("P"), 100),
        "cmyk.jpg": (grey.convert("CMYK"), 100),
        "alpha.png": (clear, 255),
        "grey_alpha.png": (clear.convert("LA"), 255),
        "deep.png": (deep, 100),
    }
    for name, (image, level) in kinds.items():
        image.save(tmp_path / name)
        for channels in (1, 3):
            pixels = read_image(tmp_path / name, channels, SQUARE)
            assert pixels.shape == (channels, 10, 10) and pixels.dtype == np.uint8
            assert abs(int(pixels.mean()) - level) <= 2, name
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="32 bits"):  # of unknown range
        read_image(tmp_path / "x.tif", 3, SQUARE)


def test_the_cache_has_the_decoded_images_and_is_used_again(files, cache, monkeypatch):
    made = photos(files).decode(SQUARE, cache)
    assert made.shape == (9, 3, 10, 10) and made.nbytes == 2700
    expected = np.stack([read_image(path, 3, SQUARE) for path in files])
    assert np.array_equal(made, expected)
    assert np.array_equal(made[[7, 0, 7]], expected[[7, 0, 7]])
    assert [p.suffix for p in cached(cache)] == [".npy"]
    monkeypatch.setattr(module, "read_image", None)  # nothing is decoded again
    again = photos(files).decode(SQUARE, cache)
    assert np.array_equal(again, expected)


def test_partial_files_of_killed_processes_are_removed(files, cache):
    photos(files).decode(SQUARE, cache)
    (made,) = cached(cache)
    partial = made.rename(made.with_name(f".{made.name}.1.partial"))
    other = cache / ".other.npy.1.partial"
    other.touch()
    photos(files).decode(SQUARE, cache)
    assert made.is_file() and other.is_file() and not partial.exists()


def test_of_two_that_need_the_same_cache_one_decodes(files, cache, monkeypatch):
    wrote, write = [], Photos._write

    def slowly(*given):
        wrote.append(1)
        time.sleep(0.3)
        write(*given)

    monkeypatch.setattr(Photos, "_write", slowly)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: photos(files).decode(SQUARE, cache), range(2))
    assert len(wrote) == 1
    assert np.array_equal(one, other)


def test_another_content_or_size_is_another_cache(files, cache):
    photos(files).decode(SQUARE, cache)
    photos(files).decode(Preprocessing(resize=10, crop=10), cache)
    assert len(list(cache.glob("*.npy"))) == 2
    stamp = files[0].stat()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(files[0])
    os.utime(files[0], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # contents count, not times
    changed = photos(files).decode(SQUARE, cache)
    assert len(list(cache.glob("*.npy"))) == 3
    assert changed[0].max() == 0


def test_the_hash_follows_contents_and_labels(files):
    first = photos(files)
    assert first.hash == photos(files).hash and len(set(first.digests)) == 9
    assert Photos(files, 1 - first.labels, 3).hash != first.hash
    assert Photos(files[::-1], first.labels, 3).hash != first.hash


@pytest.mark.parametrize("damage", ["truncated", "another shape"])
def test_a_damaged_cache_is_written_again(files, cache, damage):
    expected = photos(files).decode(SQUARE, cache).copy()
    (path,) = cached(cache)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        np.save(path, np.zeros((8, 3, 10, 10), np.uint8))
    assert np.array_equal(photos(files).decode(SQUARE, cache), expected)
    assert cached(cache) == [path]


def test_a_full_disk_is_one_message_and_leaves_nothing(files, cache, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"cannot be written to .*cache.*No space.*runs=FOLDER"):
        photos(files).decode(SQUARE, cache)
    assert cached(cache) == []


def test_unreadable_files_are_named_together(files, cache):
    files[2].write_bytes(b"no image")
    files[5].write_bytes(files[5].read_bytes()[:200])
    with pytest.raises(UserError, match=r"2 of 9(?s:.)*2\.png(?s:.)*5\.png"):
        photos(files).decode(SQUARE, cache)
    assert cached(cache) == []
    files[3].unlink()
    with pytest.raises(UserError, match=r"1 of 9(?s:.)*3\.png"):
        photos(files).decode(SQUARE, cache)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_batches_from_the_cache_are_those_from_memory(files, cache, batch_size):
    part = photos(files)
    decoded = part.decode(SQUARE, cache)
    sources = [ImageSet(images, part.labels) for images in (decoded, torch.tensor(decoded))]
    indices = np.array([1, 2, 4, 5, 7, 8])
    options = {"batch_size": batch_size, "mean": [0.5], "std": [0.2], "device": CPU}
    from_files, from_memory = (Batches(source, indices, **options) for source in sources)
    assert from_files.size == from_memory.size == 10
    for stream in (lambda b: b.in_order(), lambda b: b.epoch(0, 1, [HorizontalFlip()])):
        pairs = zip(stream(from_files), stream(from_memory), strict=True)
        for (images, labels), (others, other_labels) in pairs:
            assert torch.equal(images, others) and torch.equal(labels, other_labels)


@pytest.mark.parametrize("fit", [31, 24])
def test_a_resized_crop_sees_the_whole_photograph(files, cache, fit):
    """Against torchvision on the photographs, of which the larger ones are scaled down to fit."""
    part, rows = photos(files), np.array([1, 2, 3, 5, 6, 7])
    crop, split = ResizedCrop(size=8, antialias=True), Split(rows, rows[:0], rows[:0])
    options = {"mean": [0.0], "std": [1 / 255], "runs": cache, "device": CPU, "training": True}
    made = batches_of(prepared({"fit": fit}), Dataset(part, part), split, "train", **options)
    order = [row for step in (1, 2) for row in made.images(0, 1, step)]
    assert sorted(order) == rows.tolist() != order
    shapes = {31: [(20, 31), (25, 14), (16, 16)], 24: [(15, 24), (24, 13), (16, 16)]}[fit]
    generator = torch.Generator().manual_seed(stream_seed(0, "augment", 1))
    boxes = crop.draw(6, torch.tensor([shapes[row % 3] for row in order]), generator)
    ours = torch.cat([images for images, _ in made.epoch(0, 1, [crop])])
    for row, image, box in zip(order, ours, boxes.int().tolist(), strict=True):
        (left, top, width, height), (high, wide) = box, shapes[row % 3]
        photo = Image.open(files[row]).resize((wide, high), Image.Resampling.BILINEAR)
        assert left + width <= wide and top + height <= high
        theirs = tvf.resized_crop(photo, top, left, height, width, [8, 8])
        expected = torch.from_numpy(np.array(theirs)).permute(2, 0, 1)
        assert (image - expected).abs().max() < 1.02  # PIL rounds twice


@pytest.mark.parametrize(("resize", "crop"), [((14, 14), 14), ((14, 20), 14), ((7, 7), 7)])
def test_images_in_memory_are_resized_with_each_batch(resize, crop):
    """Against Pillow, which rounds to whole grey levels."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (5, 10, 10), dtype=np.uint8)
    images = ImageSet(torch.from_numpy(pixels).unsqueeze(1), torch.arange(5))
    options = {"mean": [0.0], "std": [1 / 255], "device": CPU, "resize": resize, "crop": crop}
    made = Batches(images, np.arange(5), batch_size=3, **options)
    ours = torch.cat([batch for batch, _ in made.in_order()])
    assert made.size == crop and ours.shape == (5, 1, crop, crop)
    reference = Compose([Resize(list(resize)), CenterCrop(crop)])
    for image, plain in zip(ours, pixels, strict=True):
        expected = np.asarray(reference(Image.fromarray(plain)), np.float32)
        assert np.abs(image[0].numpy() - expected).max() <= 1.01


def test_real_photographs(real_data, tmp_path):
    if not (real_data / "hymenoptera_data").is_dir():
        pytest.skip(f"there is no {real_data / 'hymenoptera_data'}")
    dataset = load_dataset(composed("dataset=hymenoptera", "model=torchvision").dataset, real_data)
    assert (len(dataset.train), len(dataset.test)) == (244, 153)
    images = dataset.train.decode(Preprocessing(resize=32, crop=32), tmp_path)
    grey = images.std(axis=1).mean(axis=(1, 2)) < 1
    assert grey.mean() < 0.05  # photographs have colours
