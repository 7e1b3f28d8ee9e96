"""Batches made on the device, from memory or read ahead from an array: those of the CPU."""

import numpy as np
import pytest
import torch
from helpers.on_device import DEVICE, MARKS

from spinal_repro.data.augment import Augmentation, HorizontalFlip, Perspective
from spinal_repro.data.loader import Batches
from spinal_repro.data.sources import ImageSet

pytestmark = MARKS
COUNT, EPOCHS = 100, 3


def made(device: torch.device, stored: bool) -> Batches:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (COUNT, 1, 28, 28), generator=generator, dtype=torch.uint8)
    part = ImageSet(images.numpy() if stored else images, torch.arange(COUNT))
    return Batches(
        part, np.arange(COUNT), batch_size=8, mean=[0.1], std=[0.3], device=device,
        channels_last=True,
    )  # fmt: skip


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("augmented", [False, True])
def test_batches_are_those_of_the_cpu(stored, augmented):
    """Nothing waits for the copies, so a buffer that is used again too early would show here."""
    augmentations: list[Augmentation] = [HorizontalFlip(), Perspective()] if augmented else []
    ours, plain = made(DEVICE, stored), made(torch.device("cpu"), stored)
    seen = []
    for epoch in range(1, EPOCHS + 1):
        ahead = list(ours.epoch(0, epoch, augmentations, draw_next=epoch < EPOCHS))
        for (images, labels), (others, other_labels) in zip(
            ahead, plain.epoch(0, epoch, augmentations), strict=True
        ):
            assert images.device.type == labels.device.type == DEVICE.type
            assert torch.equal(labels.cpu(), other_labels)
            # a corner of a warp may fall into the next pixel
            close = torch.isclose(images.cpu(), others, rtol=1e-3, atol=1e-3)
            assert close.float().mean() > 0.999
            seen.append(labels.cpu())
    assert torch.equal(torch.cat(seen).bincount(), torch.full((COUNT,), EPOCHS))
