"""Batches: every image once, in an order and with draws that depend on seed and epoch only."""

import math
import threading

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import transforms as tv

from spinal_repro.data import loader
from spinal_repro.data.augment import Affine, Augmentation, Perspective, ResizedCrop, Rotation
from spinal_repro.data.loader import Batches
from spinal_repro.data.sources import ImageSet
from spinal_repro.seeds import stream_seed


def numbered(count: int) -> ImageSet:
    """Images whose label is their index, written into their pixels as well."""
    index = torch.arange(count)
    images = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = index % 256, index // 256
    return ImageSet(images, index)


def noise(count: int, size: int = 28, channels: int = 1) -> ImageSet:
    shape = (count, channels, size, size)
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count))


def batches(images: ImageSet, indices=None, batch_size: int = 32, **options) -> Batches:
    """Batches in raw grey levels, unless the constants are given."""
    indices = np.arange(len(images)) if indices is None else indices
    settings = {"mean": [0.0], "std": [1 / 255], "device": torch.device("cpu"), **options}
    return Batches(images, indices, batch_size=batch_size, **settings)


def order(stream) -> list[int]:
    return torch.cat([labels for _, labels in stream]).tolist()


def pixels(stream) -> Tensor:
    return torch.cat([images for images, _ in stream])


def assert_equal_streams(one, other) -> None:
    for (images, labels), (others, other_labels) in zip(one, other, strict=True):
        assert torch.equal(images, others) and torch.equal(labels, other_labels)


class Recorder(Augmentation):
    """Records its draws and the parameters it is given; multiplies and adds."""

    def __init__(self, factor: int = 1, summand: int = 0) -> None:
        self.factor, self.summand = factor, summand
        self.drawn: list[Tensor] = []
        self.given: list[Tensor] = []

    def draw(self, count, size, generator):
        self.drawn.append(torch.rand(count, generator=generator))
        return self.drawn[-1]

    def apply(self, images, parameters):
        self.given.append(parameters)
        return self.factor * images + self.summand


VGG5 = [Perspective(), Rotation(degrees=10)]
ALL = [
    *VGG5, ResizedCrop(), Perspective(interpolation="bicubic"),
    ResizedCrop(size=20, antialias=True), Affine(degrees=9, translate=(0.1, 0.2)),
]  # fmt: skip
SUBSETS = {
    "all": np.arange(300),
    "shuffled": np.random.default_rng(0).permutation(300)[:200],
    "one": np.array([17]),
    "none": np.arange(0),
}


@pytest.mark.parametrize("indices", SUBSETS.values(), ids=SUBSETS)
@pytest.mark.parametrize("batch_size", [1, 7, 100, 1000])
def test_every_image_comes_once(indices, batch_size):
    made = batches(numbered(300), indices, batch_size)
    count = len(indices)
    assert made.num_images == count
    for stream in (made.epoch(0, 1), made.epoch(0, 1, [Recorder()]), made.in_order()):
        listed = list(stream)
        assert len(listed) == len(made) == math.ceil(count / batch_size)
        for images, labels in listed:
            numbers = images[:, 0, 0, 0].round() + 256 * images[:, 0, 0, 1].round()
            assert numbers.tolist() == labels.tolist(), "an image must keep its label"
        assert all(len(labels) == batch_size for _, labels in listed[:-1])
        assert sorted(n for _, labels in listed for n in labels.tolist()) == sorted(indices)
    assert [n for _, labels in made.in_order() for n in labels.tolist()] == indices.tolist()


@pytest.mark.parametrize(
    ("count", "sizes"), [(65, [16, 16, 16, 17]), (17, [17]), (66, [16] * 4 + [2])]
)
@pytest.mark.parametrize("pixels_at_once", [1, 2**24])
def test_a_last_batch_of_one_joins_the_batch_before(count, sizes, pixels_at_once, monkeypatch):
    monkeypatch.setitem(loader.FUSED_PIXELS, "cpu", pixels_at_once)
    made = batches(numbered(count), np.arange(count), 16, join_last=True)
    listed = list(made.epoch(0, 1))
    assert [len(labels) for _, labels in listed] == sizes and len(made) == len(sizes)
    numbers = [labels.tolist() for _, labels in listed]
    assert sorted(n for batch in numbers for n in batch) == list(range(count))
    assert numbers == [made.images(0, 1, step) for step in range(1, len(sizes) + 1)]


def test_order_depends_on_seed_and_epoch():
    made = batches(numbered(300))
    base = order(made.epoch(3, 5))
    assert base == order(made.epoch(3, 5))
    assert base == order(batches(numbered(300), batch_size=7).epoch(3, 5))
    others = [order(made.epoch(*which)) for which in ((3, 6), (4, 5), (5, 3))]
    assert len({tuple(o) for o in [base, *others, list(range(300))]}) == 5


def test_global_random_state_neither_matters_nor_changes():
    made = batches(noise(64))
    torch.manual_seed(0)
    first = pixels(made.epoch(0, 1, ALL))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(first, pixels(made.epoch(0, 1, ALL)))
    assert torch.equal(state, torch.get_rng_state())


def test_parameters_come_from_their_own_stream():
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


def test_augmentations_are_applied_in_order_to_grey_levels():
    images = numbered(10)
    out = pixels(batches(images).epoch(0, 1, [Recorder(factor=2), Recorder(summand=1)]))
    chosen = images.images[order(batches(images).epoch(0, 1))].float()
    torch.testing.assert_close(out, 2 * chosen + 1, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 25])
def test_how_many_batches_are_made_at_once_changes_no_bit(batch_size, monkeypatch):
    made = batches(noise(64), batch_size=batch_size, channels_last=True)
    streams = []
    for pixels_at_once in (1, 3 * batch_size * 28 * 28, 2**24):
        monkeypatch.setitem(loader.FUSED_PIXELS, "cpu", pixels_at_once)
        streams.append([*made.epoch(0, 1, ALL), *made.in_order()])
    for other in streams[1:]:
        assert_equal_streams(streams[0], other)


def test_drawing_the_next_epoch_ahead_changes_no_bit():
    """Also if the next epoch is not the one that was drawn."""
    ahead, plain = batches(noise(64)), batches(noise(64))
    for of, epoch in [(0, 1), (0, 2), (0, 2), (0, 4), (1, 5), (0, 6), (0, 7)]:
        assert_equal_streams(
            ahead.epoch(of, epoch, VGG5, draw_next=True), plain.epoch(of, epoch, VGG5)
        )


def test_an_epoch_drawn_ahead_is_drawn_once():
    """In a thread, during the epoch before; nothing is drawn after the last one."""
    drawn: list[bool] = []

    class Noted(Recorder):
        def draw(self, *given):
            drawn.append(threading.current_thread() is threading.main_thread())
            return super().draw(*given)

    made = batches(noise(64))
    for epoch in (1, 2, 3):
        list(made.epoch(0, epoch, [Noted()], draw_next=epoch < 3))
    assert drawn == [True, False, False]


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.1307], [0.3081]), ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3]), ([0.4], [0.2, 0.3, 0.4])],
)
def test_normalisation_is_that_of_torchvision(mean, std):
    """Each channel has its own constants, or all share them."""
    images = noise(5, 16, channels=len(std))
    made = batches(images, mean=mean, std=std)
    reference = tv.Compose([tv.ToTensor(), tv.Normalize(mean * (len(std) // len(mean)), std)])
    expected = torch.stack([reference(i.permute(1, 2, 0).numpy()) for i in images.images])
    for stream in (made.in_order, lambda: made.epoch(0, 1), lambda: made.epoch(0, 1, [Recorder()])):
        ours = pixels(stream())[np.argsort(order(stream()))]
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_layout(channels_last):
    layouts = [torch.contiguous_format, torch.channels_last]
    made = batches(noise(20, 4, channels=3), channels_last=channels_last)
    for stream in (made.in_order(), made.epoch(0, 1), made.epoch(0, 1, [Rotation(degrees=10)])):
        images, _ = next(stream)
        found = [images.is_contiguous(memory_format=layout) for layout in layouts]
        assert found == [not channels_last, channels_last]
