"""hflip and pad_crop against plain loops."""

import pytest
import torch
import torch.nn.functional as F

from spinal_repro.data.augment import HorizontalFlip, PadCrop, build_augmentations
from spinal_repro.errors import UserError


def generator():
    return torch.Generator().manual_seed(0)


def test_flip():
    images = torch.rand(200, 3, 5, 5)
    flip = HorizontalFlip()
    chosen = flip.draw(200, 5, generator())
    assert 70 < chosen.sum() < 130
    for before, after, mirrored in zip(images, flip.apply(images, chosen), chosen, strict=True):
        assert torch.equal(after, before.flip(-1) if mirrored else before)


def test_crop():
    images = torch.rand(300, 2, 6, 6)
    crop = PadCrop(padding=2)
    places = crop.draw(300, 6, generator())
    assert places.unique().tolist() == [0, 1, 2, 3, 4]
    framed = F.pad(images, [2, 2, 2, 2])
    for frame, after, (left, top) in zip(
        framed, crop.apply(images, places), places.int().tolist(), strict=True
    ):
        assert torch.equal(after, frame[:, top : top + 6, left : left + 6])


@pytest.mark.parametrize("entry", [{"name": "hflip", "p": 2}, {"name": "pad_crop", "padding": -1}])
def test_refusals(entry):
    with pytest.raises(UserError):
        build_augmentations([entry])
