"""Batches: every image once, in an order and with draws that depend on seed and epoch only."""

import math
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers.composing import composed
from torch import Tensor
from torchvision import transforms as tv

from spinal_repro.data import loader
from spinal_repro.data.augment import Affine, Augmentation, Perspective, ResizedCrop, Rotation
from spinal_repro.data.loader import Batches
from spinal_repro.data.sources import ImageSet
from spinal_repro.data.splits import Indices
from spinal_repro.seeds import stream_seed

CPU = torch.device("cpu")


def numbered(count: int, size: int = 4, channels: int = 1) -> ImageSet:
    """Images whose label is their index, written into their pixels as well."""
    index = torch.arange(count)
    images = torch.zeros(count, channels, size, size, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = index % 256, index // 256
    return ImageSet(images, index)


def noise(count: int, size: int = 28) -> ImageSet:
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (count, 1, size, size), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count))


def batches(
    images: ImageSet, indices: Indices | None = None, batch_size: int = 32, **options: object
) -> Batches:
    """Batches in raw grey levels, unless the constants are given."""
    indices = np.arange(len(images)) if indices is None else indices
    settings = {"mean": [0.0], "std": [1 / 255], "device": CPU, **options}
    return Batches(images, indices, batch_size=batch_size, **settings)  # type: ignore[arg-type]


def numbers(pixels: Tensor) -> list[int]:
    """The image numbers that `numbered` wrote into the pixels."""
    return (pixels[:, 0, 0, 0].round() + 256 * pixels[:, 0, 0, 1].round()).int().tolist()


def order(stream: Iterator[tuple[Tensor, Tensor]]) -> list[int]:
    return torch.cat([labels for _, labels in stream]).tolist()


def pixels(stream: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.cat([images for images, _ in stream])


class Recorder(Augmentation):
    """Records its draws and the parameters it is given; multiplies and adds."""

    def __init__(self, factor: int = 1, summand: int = 0) -> None:
        self.factor, self.summand = factor, summand
        self.drawn: list[Tensor] = []
        self.given: list[Tensor] = []

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        self.drawn.append(torch.rand(count, generator=generator))
        return self.drawn[-1]

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        self.given.append(parameters)
        return self.factor * images + self.summand


VGG5 = [Perspective(), Rotation(degrees=10)]
SUBSETS = {
    "all": np.arange(300),
    "some": np.flatnonzero(np.arange(300) % 3),
    "shuffled": np.random.default_rng(0).permutation(300),
    "one": np.array([17]),
}


# Cover


@pytest.mark.parametrize("indices", SUBSETS.values(), ids=SUBSETS)
@pytest.mark.parametrize("batch_size", [1, 7, 100, 300, 1000])
def test_every_image_comes_once(indices: Indices, batch_size: int) -> None:
    made = batches(numbered(300), indices, batch_size)
    count = len(indices)
    assert made.num_images == count
    for stream in (made.epoch(0, 1), made.epoch(0, 1, [Recorder()]), made.in_order()):
        listed = list(stream)
        assert len(listed) == len(made) == math.ceil(count / batch_size)
        sizes = [len(labels) for _, labels in listed]
        assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
        assert sizes[-1] == count - batch_size * (len(sizes) - 1)
        for images, labels in listed:
            assert numbers(images) == labels.tolist(), "an image must keep its label"
        assert sorted(order(iter(listed))) == sorted(indices.tolist())


def test_no_images_give_no_batches() -> None:
    made = batches(numbered(10), np.arange(0))
    assert len(made) == made.num_images == 0
    assert list(made.in_order()) == list(made.epoch(0, 1, VGG5)) == []


@pytest.mark.parametrize("indices", SUBSETS.values(), ids=SUBSETS)
def test_in_order_is_the_order_of_the_split(indices: Indices) -> None:
    made = batches(numbered(300), indices)
    assert order(made.in_order()) == indices.tolist()
    assert order(made.in_order()) == indices.tolist(), "and again"


# Order


def test_order_depends_on_seed_and_epoch() -> None:
    made = batches(numbered(300))
    base = order(made.epoch(3, 5))
    assert base == order(made.epoch(3, 5))
    assert base == order(batches(numbered(300), batch_size=7).epoch(3, 5))
    others = [order(made.epoch(*which)) for which in ((3, 6), (4, 5), (5, 3))]
    assert len({tuple(o) for o in [base, *others, list(range(300))]}) == 5


def test_global_random_state_neither_matters_nor_changes() -> None:
    made = batches(noise(64))
    torch.manual_seed(0)
    first = pixels(made.epoch(0, 1, VGG5))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(first, pixels(made.epoch(0, 1, VGG5)))
    assert torch.equal(state, torch.get_rng_state())


# Augmentation


def test_parameters_come_from_their_own_stream() -> None:
    """They go to the images in turn; two augmentations draw one after the other."""
    first, second = Recorder(), Recorder()
    listed = order(batches(numbered(300), batch_size=32).epoch(3, 5, [first, second]))
    generator = torch.Generator().manual_seed(stream_seed(3, "augment", 5))
    for recorder in (first, second):
        expected = torch.rand(300, generator=generator)
        assert torch.equal(recorder.drawn[0], expected)
        assert torch.equal(torch.cat(recorder.given), expected)
    generator = torch.Generator().manual_seed(stream_seed(3, "order", 5))
    assert listed == torch.randperm(300, generator=generator).tolist()


def test_augmentations_are_applied_in_order_to_grey_levels() -> None:
    images = numbered(10)
    out = pixels(batches(images).epoch(0, 1, [Recorder(factor=2), Recorder(summand=1)]))
    chosen = images.images[order(batches(images).epoch(0, 1))].float()
    torch.testing.assert_close(out, 2 * chosen + 1, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 25])
def test_how_many_batches_are_made_at_once_changes_no_bit(
    batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = batches(noise(64), batch_size=batch_size, channels_last=True)
    augmentations = [*VGG5, ResizedCrop(), Affine(degrees=9, translate=(0.1, 0.2))]
    streams = []
    for pixels_at_once in (1, 3 * batch_size * 28 * 28, 2**24):
        monkeypatch.setitem(loader.FUSED_PIXELS, "cpu", pixels_at_once)
        streams.append([*made.epoch(0, 1, augmentations), *made.in_order()])
    for other in streams[1:]:
        for (images, labels), (others, other_labels) in zip(streams[0], other, strict=True):
            assert torch.equal(images, others) and torch.equal(labels, other_labels)


@pytest.mark.parametrize("seed", [0, 3])
def test_drawing_the_next_epoch_ahead_changes_no_bit(seed: int) -> None:
    """Also if the next epoch is not the one that was drawn."""
    images = noise(64)
    ahead, plain = batches(images), batches(images)
    asked = [(seed, 1), (seed, 2), (seed, 2), (seed, 4), (seed + 1, 5), (seed, 6), (seed, 7)]
    for of, epoch in asked:
        drawn = ahead.epoch(of, epoch, VGG5, draw_next=True)
        for (mine, labels), (other, others) in zip(
            drawn, plain.epoch(of, epoch, VGG5), strict=True
        ):
            assert torch.equal(mine, other) and torch.equal(labels, others)


def test_an_epoch_drawn_ahead_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread, during the epoch before; nothing is drawn after the last one."""
    drawn: list[tuple[int, bool]] = []
    draw = Batches._draw

    def noted(self: Batches, seed: int, epoch: int, augmentations: list[Augmentation]) -> object:
        drawn.append((epoch, threading.current_thread() is threading.main_thread()))
        return draw(self, seed, epoch, augmentations)

    monkeypatch.setattr(Batches, "_draw", noted)
    made = batches(noise(64))
    for epoch in (1, 2, 3):
        for _ in made.epoch(0, epoch, VGG5, draw_next=epoch < 3):
            pass
    assert drawn == [(1, True), (2, False), (3, False)]


# Normalisation and layout


@pytest.mark.parametrize("recipe", ["mnist", "fashion_mnist"])
def test_normalisation_is_that_of_torchvision(recipe: str) -> None:
    """All 256 grey levels, with the constants of the recipe."""
    constants = composed(f"dataset={recipe}", "model=vgg5").recipe
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    images = ImageSet(grey, torch.zeros(1, dtype=torch.int64))
    made = batches(images, mean=constants.mean, std=constants.std)
    reference = tv.Compose([tv.ToTensor(), tv.Normalize(constants.mean, constants.std)])
    expected = reference(grey[0, 0].numpy())
    for stream in (made.in_order(), made.epoch(0, 1), made.epoch(0, 1, [Recorder()])):
        ours, _ = next(stream)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std"), [([0.4, 0.5, 0.6], [0.2, 0.25, 0.3]), ([0.4], [0.2]), ([0.4], [0.2, 0.3, 0.4])]
)
def test_channels_have_their_own_constants(mean: list[float], std: list[float]) -> None:
    generator = torch.Generator().manual_seed(0)
    colour = torch.randint(0, 256, (5, 3, 8, 8), generator=generator, dtype=torch.uint8)
    made = batches(ImageSet(colour, torch.arange(5)), mean=mean, std=std)
    each = [m * (3 // len(m)) for m in (mean, std)]
    reference = tv.Compose([tv.ToTensor(), tv.Normalize(*each)])
    expected = torch.stack([reference(image.permute(1, 2, 0).numpy()) for image in colour])
    torch.testing.assert_close(pixels(made.in_order()), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_layout(channels_last: bool) -> None:
    made = batches(numbered(20, channels=3), channels_last=channels_last)
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    other = torch.contiguous_format if channels_last else torch.channels_last
    streams = made.in_order(), made.epoch(0, 1), made.epoch(0, 1, [Rotation(degrees=10)])
    for stream in streams:
        images, _ = next(stream)
        assert images.is_contiguous(memory_format=wanted)
        assert not images.is_contiguous(memory_format=other)
