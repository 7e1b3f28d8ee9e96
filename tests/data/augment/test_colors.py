"""Colour jitter and erased boxes against torchvision's functions, image by image."""

import math

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from spinal_repro.data.augment import ColorJitter, RandomErasing, build_augmentations
from spinal_repro.errors import UserError

SIGMAS = 5  # tolerance of statistical tests, in standard errors


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def colours(count: int, channels: int = 3, size: int = 12):
    """Noise, and images of one grey level, which have no hue."""
    images = torch.rand(count, channels, size, size, generator=seeded()) * 255
    images[0], images[1], images[2] = 0, 255, 100
    images[3, :1] = images[3].amax(0)  # a tie
    return images.round()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "reach", [(0.4, 0, 0, 0), (0, 0.8, 0, 0), (0, 0, 2, 0), (0, 0, 0, 0.5), (0.4, 0.4, 0.4, 0.1)]
)
def test_color_jitter_is_that_of_torchvision(reach, channels):
    names = ("brightness", "contrast", "saturation", "hue")
    jitter = ColorJitter(**dict(zip(names, reach, strict=True)))
    images = colours(60, channels)
    drawn = jitter.draw(60, 12, seeded())
    before = images.clone()
    ours = jitter.apply(images, drawn)
    assert torch.equal(images, before)
    functions = [getattr(tvf, f"adjust_{name}") for name in names]
    for image, after, factors in zip(images / 255, ours, drawn.tolist(), strict=True):
        for function, factor in zip(functions, factors, strict=True):
            image = function(image, factor)
        torch.testing.assert_close(after, image * 255, rtol=0, atol=0.01)
    changes = channels == 3 or reach[0] or reach[1]
    assert ((ours - images).abs().max() > 1) == bool(changes)


def test_factors_are_uniform_in_the_ranges_of_torchvision():
    options = {"brightness": 0.4, "contrast": 1.5, "saturation": 0.2, "hue": 0.1}
    drawn = ColorJitter(**options).draw(5000, 12, seeded())
    ranges = [getattr(v2.ColorJitter(**options), name) for name in options]
    for column, (low, high) in zip(drawn.T, ranges, strict=True):
        assert low <= column.min() and column.max() <= high
        distance = (column.sort().values - low) / (high - low) - torch.arange(5000) / 5000
        assert distance.abs().max() < 2.0 / math.sqrt(5000)  # Kolmogorov-Smirnov
    assert (torch.corrcoef(drawn.T) - torch.eye(4)).abs().max() < SIGMAS / math.sqrt(5000)


@pytest.mark.parametrize("value", [0.0, 128.0])
def test_erasing_is_that_of_torchvision(value):
    erasing, images = RandomErasing(p=0.7, value=value), colours(200)
    boxes = erasing.draw(200, 12, seeded())
    ours, erased = erasing.apply(images, boxes), 0
    for image, after, box in zip(images, ours, boxes.int().tolist(), strict=True):
        left, top, right, bottom = box
        erased += right > left
        fill = torch.tensor([value]).view(1, 1, 1)
        expected = tvf.erase(image, top, left, bottom - top, right - left, fill)
        assert torch.equal(after, expected)
        assert 0 <= left <= right <= 12 and 0 <= top <= bottom <= 12
    assert abs(erased / 200 - 0.7) < SIGMAS * math.sqrt(0.7 * 0.3 / 200)


def test_boxes_are_distributed_as_in_torchvision():
    """Mean and spread of the area, of the shape and of the corner; p=1, 10 px."""
    ours = RandomErasing(p=1).draw(20_000, 10, seeded())
    torch.manual_seed(0)
    theirs, image = [], torch.ones(1, 10, 10)
    for erased in (v2.RandomErasing(p=1)(image)[0] for _ in range(2000)):
        rows, columns = (erased == 0).any(1).nonzero(), (erased == 0).any(0).nonzero()
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        theirs.append(torch.stack(box).float())
    ours, theirs = (
        torch.stack([b[:, 0], b[:, 1], w := b[:, 2] - b[:, 0], h := b[:, 3] - b[:, 1], w * h], 1)
        for b in (ours, torch.stack(theirs))
    )
    error = theirs.std(0) / math.sqrt(2000)
    assert ((ours.mean(0) - theirs.mean(0)).abs() < SIGMAS * error).all()
    assert ((ours.std(0) - theirs.std(0)).abs() < SIGMAS * error).all()
    assert set(map(tuple, theirs[:, 2:4].tolist())) <= set(map(tuple, ours[:, 2:4].tolist()))


def test_a_box_that_never_fits_erases_nothing():
    drawn = RandomErasing(p=1, scale=[2, 3]).draw(50, 10, seeded())
    assert not drawn.any()
    images = colours(50)
    assert torch.equal(RandomErasing(p=1).apply(images, drawn), images)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"name": "color_jitter", "brightness": -1}, "negative"),
        ({"name": "color_jitter", "hue": 0.6}, "hue"),
        ({"name": "color_jitter", "colour": 1}, "colour"),
        ({"name": "random_erasing", "p": 2}, "p"),
        ({"name": "random_erasing", "value": 300}, "value"),
        ({"name": "random_erasing", "scale": [0.5, 0.1]}, "scale"),
        ({"name": "random_erasing", "ratio": [1]}, "ratio"),
    ],
)
def test_wrong_entries_are_refused(entry, named):
    with pytest.raises(UserError, match=named):
        build_augmentations([entry])
