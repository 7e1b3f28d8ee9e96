"""Batches made on the device: images stay there as uint8, nothing is loaded per sample."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from spinal_repro.data.augment import Augmentation
from spinal_repro.data.sources import ImageSet
from spinal_repro.data.splits import Indices
from spinal_repro.seeds import stream_seed

Batch = tuple[Tensor, Tensor]


class Batches:
    """The batches of one part of a data set.

    Args:
        images: The published part, on any device.
        indices: Which of its images belong to the split.
        batch_size: Images a batch; the last one may be smaller.
        mean: Normalisation, one value or one a channel, for pixels in [0, 1].
        std: As mean.
        device: Where batches are made; the images are copied there once.
        channels_last: Memory layout of the batches.
    """

    def __init__(
        self,
        images: ImageSet,
        indices: Indices,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        channels_last: bool = False,
    ) -> None:
        chosen = torch.from_numpy(indices)
        whole = np.array_equal(indices, np.arange(len(images)))
        self.images = (images.images if whole else images.images[chosen]).to(device)
        self.labels = (images.labels if whole else images.labels[chosen]).to(device)
        self.batch_size = batch_size
        self._shift = torch.tensor(mean, device=device).view(1, -1, 1, 1) * 255
        self._scale = 1 / (torch.tensor(std, device=device).view(1, -1, 1, 1) * 255)
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.labels) // self.batch_size)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.labels)

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in 0..255 to network input."""
        return ((pixels - self._shift) * self._scale).contiguous(memory_format=self._format)

    def in_order(self) -> Iterator[Batch]:
        """Every image once, in the order of the split, not augmented."""
        for start in range(0, self.num_images, self.batch_size):
            part = slice(start, start + self.batch_size)
            yield self._normalise(self.images[part].float()), self.labels[part]

    def epoch(
        self, seed: int, epoch: int, augmentations: Sequence[Augmentation] = ()
    ) -> Iterator[Batch]:
        """Every image once, shuffled and augmented, as the seed and the epoch number say.

        All random numbers of the epoch are drawn first, so a batch costs a gather and the warps.
        """
        device, count = self.images.device, self.num_images
        order = torch.randperm(count, generator=_generator(seed, "order", epoch)).to(device)
        generator = _generator(seed, "augment", epoch)
        size = self.images.shape[-1]
        drawn = [a.draw(count, size, generator).to(device) for a in augmentations]
        for start in range(0, count, self.batch_size):
            part = slice(start, start + self.batch_size)
            chosen = order[part]
            pixels = self.images[chosen].float()
            for augmentation, parameters in zip(augmentations, drawn, strict=True):
                pixels = augmentation.apply(pixels, parameters[part])
            yield self._normalise(pixels), self.labels[chosen]


def _generator(seed: int, stream: str, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, stream, epoch))
