"""Whether what was written computes what the trained model computes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from spinal_repro.data.loader import Batches
from spinal_repro.export.formats import Compute

IMAGES, BATCH = 64, 24  # compared; the first is a batch of its own, the last batch is smaller
TOLERANCE = 1e-4  # of the largest logit, or of 1: other kernels add in another order


@dataclass(frozen=True)
class Parity:
    """How far what was written is from the model.

    Attributes:
        images: Real images compared.
        difference: Largest absolute difference of a logit.
        allowed: What it may be.
        agree: Images with the same class first.
    """

    images: int
    difference: float
    allowed: float
    agree: int


def compare(model: Compute, written: Compute, batches: Batches) -> Parity:
    """Compare two models on the first images of a part, the very first one alone.

    Args:
        model: The trained one.
        written: The other.
        batches: Real images, normalised.
    """
    count = agree = 0
    difference, largest = 0.0, 1.0
    for images in _some(batches):
        with torch.no_grad():
            expected, found = model(images), written(images)
        apart = (expected - found).abs().max().item()
        difference = apart if not apart <= difference else difference  # also where it is NaN
        largest = max(largest, expected.abs().max().item())
        agree += int((expected.argmax(1) == found.argmax(1)).sum())
        count += len(images)
        if not difference < float("inf"):
            break
    return Parity(count, difference, TOLERANCE * largest, agree)


def _some(batches: Batches) -> Iterator[Tensor]:
    seen = 0
    for images, _ in batches.in_order():
        if not seen:
            yield images[:1].contiguous()
            images = images[1:]
        images = images[: IMAGES - max(seen, 1)]
        if len(images):
            yield images.contiguous()
        seen = max(seen, 1) + len(images)
        if seen >= IMAGES:
            return
