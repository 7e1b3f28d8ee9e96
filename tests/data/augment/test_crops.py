"""Flips and crops against plain loops."""

import pytest
import torch
import torch.nn.functional as F

from spinal_repro.data.augment import Crop, HorizontalFlip, PadCrop, ResizedCrop, VerticalFlip
from spinal_repro.errors import UserError


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("kind", "axis"), [(HorizontalFlip, -1), (VerticalFlip, -2)])
def test_flip(kind, axis):
    images = torch.rand(200, 3, 5, 5)
    flip = kind()
    chosen = flip.draw(200, 5, generator())
    assert 70 < chosen.sum() < 130
    for before, after, mirrored in zip(images, flip.apply(images, chosen), chosen, strict=True):
        assert torch.equal(after, before.flip(axis) if mirrored else before)


@pytest.mark.parametrize(("crop", "margin"), [(PadCrop(padding=2), 2), (Crop(size=4), 0)])
def test_crop(crop, margin):
    images = torch.rand(300, 2, 7, 7)
    size, places = crop.size_after(7), crop.draw(300, 7, generator())
    assert size == (7 if margin else 4)
    framed = F.pad(images, [margin] * 4)
    assert places.unique().tolist() == list(range(8 + 2 * margin - size))
    cut = crop.apply(images, places)
    for frame, after, (left, top) in zip(framed, cut, places.int().tolist(), strict=True):
        assert torch.equal(after, frame[:, top : top + size, left : left + size])


def test_a_crop_does_not_enlarge():
    with pytest.raises(UserError, match="6 px cannot be cropped to 8 px"):
        Crop(size=8).draw(1, 6, generator())


@pytest.mark.parametrize("size", [5, 8, 20])
def test_resized_crop_gives_its_size(size):
    images = torch.rand(3, 1, 10, 10)
    crop = ResizedCrop(size=size)
    whole = torch.tensor([[0.0, 0, 10, 10]]).expand(3, 4)
    out = crop.apply(images, whole)
    assert out.shape[-1] == crop.size_after(10) == size
    plain = F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    torch.testing.assert_close(out, plain)
