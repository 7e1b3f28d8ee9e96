"""Image files: decoded as torchvision does, cached by content, unreadable ones named together."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.data import photos as photos_module
from spinal_repro.data.augment import HorizontalFlip
from spinal_repro.data.loader import Batches
from spinal_repro.data.photos import Photos, read_image
from spinal_repro.data.sources import ImageSet
from spinal_repro.errors import UserError

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


def photos(files: list[Path]) -> Photos:
    return Photos(files, torch.arange(len(files)) % 2, 3)


@pytest.mark.parametrize("resize", [12, [12, 12], [12, 17], 40])
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
    palette = grey.convert("P")
    palette.info["transparency"] = 0
    deep = Image.fromarray(np.full((12, 12), 100 * 257, np.uint16))
    kinds = {
        "grey.png": (grey, 100),
        "palette.png": (palette, None),
        "cmyk.jpg": (grey.convert("CMYK"), 100),
        "alpha.png": (clear, 255),  # nothing over white is white
        "grey_alpha.png": (clear.convert("LA"), 255),
        "deep.png": (deep, 100),
    }
    for name, (image, level) in kinds.items():
        image.save(tmp_path / name)
        for channels in (1, 3):
            pixels = read_image(tmp_path / name, channels, SQUARE)
            assert pixels.shape == (channels, 10, 10) and pixels.dtype == np.uint8
            if level is not None:
                assert abs(int(pixels.mean()) - level) <= 2, name


def kept(cache: Path) -> list[Path]:
    """What lies in a cache but for locks."""
    return sorted(path for path in cache.glob("*") if path.suffix != ".lock")


def test_the_cache_holds_what_decoding_gives_and_is_used_again(files, tmp_path, monkeypatch):
    made = photos(files).prepared(SQUARE, tmp_path / "cache")
    assert made.shape == (9, 3, 10, 10) and made.nbytes == 2700
    expected = np.stack([read_image(path, 3, SQUARE) for path in files])
    assert np.array_equal(made.gather(torch.arange(9)).numpy(), expected)
    rows = torch.tensor([7, 0, 7])
    assert np.array_equal(made.gather(rows).numpy(), expected[rows])
    assert [p.suffix for p in kept(tmp_path / "cache")] == [".npy"]

    monkeypatch.setattr("spinal_repro.data.photos.read_image", None)  # nothing is decoded again
    again = photos(files).prepared(SQUARE, tmp_path / "cache")
    assert np.array_equal(again.gather(torch.arange(9)).numpy(), expected)


def test_what_a_killed_process_left_of_a_cache_goes(files, tmp_path):
    cache = tmp_path / "cache"
    photos(files).prepared(SQUARE, cache)
    made = kept(cache)
    for path in made:
        path.rename(path.with_name(f".{path.name}.1.partial"))
    other = cache / ".other.npy.1.partial"  # whoever makes that may be at it
    other.touch()
    photos(files).prepared(SQUARE, cache)
    assert kept(cache) == sorted([other, *made])


def test_of_two_that_want_the_same_cache_one_decodes(files, tmp_path, monkeypatch):
    """The second waits, and finds it there."""
    cache, wrote, write = tmp_path / "cache", [], Photos._write

    def slowly(*given):
        wrote.append(1)
        time.sleep(0.3)
        write(*given)

    monkeypatch.setattr(Photos, "_write", slowly)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: photos(files).prepared(SQUARE, cache), range(2))
    assert len(wrote) == 1
    rows = torch.arange(9)
    assert torch.equal(one.gather(rows), other.gather(rows))


def test_another_content_or_size_is_another_cache(files, tmp_path):
    cache = tmp_path / "cache"
    photos(files).prepared(SQUARE, cache)
    photos(files).prepared(Preprocessing(resize=10, crop=10), cache)
    assert len(list(cache.glob("*.npy"))) == 2
    stamp = files[0].stat()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(files[0])
    os.utime(files[0], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # contents count, not times
    changed = photos(files).prepared(SQUARE, cache)
    assert len(list(cache.glob("*.npy"))) == 3
    assert changed.gather(torch.tensor([0])).max() == 0


def test_hash_and_digests_follow_contents_and_labels(files):
    first, second = photos(files), photos(files)
    assert first.hash == second.hash and len(set(first.digests)) == 9
    assert Photos(files, 1 - first.labels, 3).hash != first.hash
    assert Photos(files[::-1], first.labels, 3).hash != first.hash


@pytest.mark.parametrize("damage", ["truncated", "another shape", "no array", "pickle"])
def test_a_damaged_cache_is_written_again(files, tmp_path, damage):
    cache = tmp_path / "cache"
    expected = photos(files).prepared(SQUARE, cache).gather(torch.arange(9))
    (path,) = cache.glob("*.npy")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "no array":
        path.write_bytes(b"")
    else:
        np.save(path, np.zeros((8, 3, 10, 10), np.uint8 if damage != "pickle" else object))
    again = photos(files).prepared(SQUARE, cache)
    assert torch.equal(again.gather(torch.arange(9)), expected)
    assert kept(cache) == [path]


def test_a_full_disk_is_one_message_and_leaves_nothing(files, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"cannot be written to .*cache.*No space.*runs=FOLDER"):
        photos(files).prepared(SQUARE, tmp_path / "cache")
    assert kept(tmp_path / "cache") == []


def test_unreadable_files_are_named_together(files, tmp_path):
    files[2].write_bytes(b"no image")
    files[5].write_bytes(files[5].read_bytes()[:200])
    with pytest.raises(UserError, match=r"2 of 9(?s:.)*2\.png(?s:.)*5\.png"):
        photos(files).prepared(SQUARE, tmp_path / "cache")
    assert kept(tmp_path / "cache") == []


def test_pixels_of_unknown_range(tmp_path):
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="32 bits"):
        read_image(tmp_path / "x.tif", 3, SQUARE)


def test_a_file_that_vanished_is_named(files, tmp_path):
    files[3].unlink()
    with pytest.raises(UserError, match=r"1 of 9(?s:.)*3\.png"):
        photos(files).prepared(SQUARE, tmp_path / "cache")


@pytest.mark.parametrize("batch_size", [1, 4, 9, 100])
def test_batches_of_files_are_those_of_the_same_images_in_memory(files, tmp_path, batch_size):
    part = photos(files)
    decoded = part.prepared(SQUARE, tmp_path / "cache")
    memory = ImageSet(decoded.gather(torch.arange(9)), part.labels)
    indices = np.array([1, 2, 4, 5, 7, 8])
    options = {"batch_size": batch_size, "mean": [0.5], "std": [0.2], "device": CPU}
    from_files = Batches(ImageSet(decoded, part.labels), indices, **options)
    from_memory = Batches(memory, indices, **options)
    assert from_files.size == from_memory.size == 10
    for stream in (lambda b: b.in_order(), lambda b: b.epoch(0, 1, [HorizontalFlip()])):
        pairs = zip(stream(from_files), stream(from_memory), strict=True)
        for (images, labels), (others, other_labels) in pairs:
            assert torch.equal(images, others) and torch.equal(labels, other_labels)


@pytest.mark.parametrize(("resize", "crop"), [((14, 14), 14), ((14, 20), 14), ((7, 7), 7)])
def test_images_in_memory_are_resized_with_each_batch(resize, crop):
    """Against Pillow, which rounds to whole grey levels."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (5, 10, 10), dtype=np.uint8)
    images = ImageSet(torch.from_numpy(pixels).unsqueeze(1), torch.arange(5))
    made = Batches(
        images, np.arange(5), batch_size=3, mean=[0.0], std=[1 / 255], device=CPU,
        resize=resize, crop=crop,
    )  # fmt: skip
    ours = torch.cat([batch for batch, _ in made.in_order()])
    assert made.size == crop and ours.shape == (5, 1, crop, crop)
    reference = Compose([Resize(list(resize)), CenterCrop(crop)])
    for image, plain in zip(ours, pixels, strict=True):
        expected = np.asarray(reference(Image.fromarray(plain)), np.float32)
        assert np.abs(image[0].numpy() - expected).max() <= 1.01


def test_without_locks_nothing_of_others_is_removed(files, tmp_path, monkeypatch):
    """Another process may be writing it."""

    @contextmanager
    def unlocked(*_given):
        yield False

    monkeypatch.setattr(photos_module, "alone", unlocked)
    cache = tmp_path / "cache"
    photos(files).prepared(SQUARE, cache)
    (path,) = cache.glob("*.npy")
    others = path.with_name(f".{path.name}.elsewhere.1.partial")
    path.rename(others)
    photos(files).prepared(SQUARE, cache)
    assert others.is_file() and path.is_file()
