"""Batches, built on the device from uint8 images; images in a cache file are prefetched."""

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spinal_repro.config.schema import RecipeConfig
from spinal_repro.data.augment import Augmentation
from spinal_repro.data.sources import ImageSet
from spinal_repro.data.splits import Indices
from spinal_repro.seeds import stream_seed

Batch = tuple[Tensor, ...]  # images and labels, with weights also those
_Part = tuple[slice, list[int]]  # place of several batches among all images, and their sizes
_Drawn = tuple[Tensor, list[Tensor]]

# Small batches are gathered, warped and normalised several at a time, up to this many pixels:
# the overhead of a PyTorch call equals the work on about 64 digits. On a CPU they fit its cache.
FUSED_PIXELS = {"cpu": 2**19}
FUSED_PIXELS_GPU = 2**24


class Batches:
    """The batches of one part of a data set.

    Args:
        indices: The images of the published part that belong to the split.
        batch_size: The last batch may be smaller.
        numbers: Of the images in the published part, if ``images`` holds only some of it.
        join_last: Let a last batch of one image join the batch before it, for batch norm.
        mean: For pixels in [0, 1], one value or one per channel; so is ``std``.
        device: Where batches are made; images in memory are copied there once.
        resize: ``(height, width)`` of images before augmentation; None for no resizing.
        crop: Side of the centre crop after resizing; None for no crop.
        outputs: How many of the model's outputs count in an evaluation; None for all.
        shapes: Height and width ``[N, 2]`` of whole photographs, each in the upper left corner of
            its image; the first augmentation must be a resized crop. None: images are whole.
        weights: Of the images ``[N]`` in the loss, on the CPU; yielded by `epoch`. None: all equal.
        shares: An epoch draws N images in proportion to these ``[N]``. None: each image once.
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
        resize: tuple[int, int] | None = None,
        crop: int | None = None,
        outputs: int | None = None,
        shapes: Tensor | None = None,
        join_last: bool = False,
        numbers: Indices | None = None,
        weights: Tensor | None = None,
        shares: Tensor | None = None,
    ) -> None:
        self._numbers, self.outputs = indices if numbers is None else numbers, outputs
        chosen = torch.from_numpy(indices)
        whole = np.array_equal(indices, np.arange(len(images)))
        self.labels = (images.labels if whole else images.labels[chosen]).to(device)
        self._weights, self._shares = None if weights is None else weights.to(device), shares
        self.num_images, self.batch_size, self.device = len(indices), batch_size, device
        full, rest = divmod(len(indices), batch_size)
        self.sizes = [batch_size] * full + [rest] * (rest > 0)
        if join_last and rest == 1 and full:
            self.sizes[-2:] = [batch_size + 1]
        self._resize, self._crop = resize, crop
        self._shapes = None if shapes is None else shapes[chosen]
        if isinstance(images.images, Tensor):
            self._pixels = (images.images if whole else images.images[chosen]).to(device)
            self._decoded = None
        else:
            self._rows, self._decoded = chosen, images.images
        self._stored_size = images.images.shape[-1]
        self._shift = torch.tensor(mean, device=device).view(1, -1, 1, 1) * 255
        self._scale = 1 / (torch.tensor(std, device=device).view(1, -1, 1, 1) * 255)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._ahead: dict[tuple[int, int], Future[_Drawn]] = {}  # by seed and epoch

    def of_features(self, features: Tensor) -> "Batches":
        """Copy that yields features ``[N, F, 1, 1]`` of the images in their place, as they are."""
        made = copy.copy(self)
        made._pixels, made._decoded, made._shapes = features.to(self.device), None, None
        made._resize, made._crop, made._stored_size = None, None, 1
        made._shift, made._scale = (torch.tensor(c, device=self.device) for c in (0.0, 1.0))
        return made

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def size(self) -> int:
        """Side of the images before augmentation, in pixels."""
        return self._crop or (self._resize[0] if self._resize else self._stored_size)

    def _pinned(self, tensor: Tensor) -> Tensor:
        """Copy to pinned memory, for asynchronous copies to a GPU."""
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _chunks(
        self, order: Tensor | None = None, cpu_order: Tensor | None = None
    ) -> Iterator[tuple[slice, list[int], Tensor]]:
        """Yield images in 0..255 ``[M, C, H, W]`` with their part of the order.

        From memory several batches at a time; from a cache file one batch at a time, while a
        thread prefetches the next one.
        """
        if self._decoded is None:
            side, channels = max(self.size, self._stored_size), self._pixels.shape[1]
            limit = FUSED_PIXELS.get(self.device.type, FUSED_PIXELS_GPU)
            for part, sizes in self._parts(limit // (self.batch_size * channels * side**2)):
                pixels = self._pixels
                chosen = pixels[part] if order is None else pixels.index_select(0, order[part])
                yield part, sizes, self._sized(chosen)
            return
        parts = self._parts(1)
        rows = self._rows if cpu_order is None else self._rows[cpu_order]
        stored = self._decoded

        def read(part: slice) -> Tensor:
            return self._pinned(torch.from_numpy(stored[rows[part].numpy()]))

        with ThreadPoolExecutor(1) as reader:
            reads = (reader.submit(read, part) for part, _ in parts)
            upcoming: Any = next(reads, None)
            for part, sizes in parts:
                pixels, upcoming = upcoming.result(), next(reads, None)
                yield part, sizes, self._sized(pixels.to(self.device, non_blocking=True))

    def _parts(self, batches: int) -> list[_Part]:
        """Divide the images into parts of so many batches, but at least one."""
        step = max(1, batches)
        sizes = [self.sizes[at : at + step] for at in range(0, len(self.sizes), step)]
        stops = list(accumulate(map(sum, sizes), initial=0))
        places = map(slice, stops[:-1], stops[1:])
        return list(zip(places, sizes, strict=True))

    def _sized(self, pixels: Tensor) -> Tensor:
        """Convert uint8 to float in 0..255 and resize."""
        pixels = pixels.float()
        if self._resize is not None and self._resize != tuple(pixels.shape[-2:]):
            pixels = F.interpolate(pixels, self._resize, mode="bilinear", antialias=True)
        if self._crop is not None:
            top, left = ((side - self._crop) // 2 for side in pixels.shape[-2:])
            pixels = pixels[..., top : top + self._crop, left : left + self._crop]
        return pixels

    def in_order(self) -> Iterator[Batch]:
        """Yield every image once, in the order of the split, without augmentation."""
        for part, sizes, pixels in self._chunks():
            yield from self._batches(pixels, sizes, self.labels[part])

    def _batches(self, pixels: Tensor, sizes: list[int], *others: Tensor) -> Iterator[Batch]:
        """Normalise pixels in 0..255 and split them, labels and weights into batches."""
        images = ((pixels - self._shift) * self._scale).contiguous(memory_format=self._format)
        return zip(*(tensor.split(sizes) for tensor in (images, *others)), strict=True)

    def epoch(
        self,
        seed: int,
        epoch: int,
        augmentations: Sequence[Augmentation] = (),
        draw_next: bool = False,
    ) -> Iterator[Batch]:
        """Yield every image once, shuffled and augmented by ``seed`` and ``epoch`` (from 1).

        With ``shares`` the images are drawn with replacement.
        All random numbers of an epoch are drawn at its start; with ``draw_next`` those of the next
        one meanwhile, in a thread.
        """
        ahead, self._ahead = self._ahead.get((seed, epoch)), {}
        cpu_order, on_cpu = ahead.result() if ahead else self._draw(seed, epoch, augmentations)
        if draw_next:
            pool = ThreadPoolExecutor(1)
            self._ahead[seed, epoch + 1] = pool.submit(self._draw, seed, epoch + 1, augmentations)
            pool.shutdown(wait=False)
        order = cpu_order.to(self.device, non_blocking=True)
        drawn = [parameters.to(self.device, non_blocking=True) for parameters in on_cpu]
        for part, sizes, pixels in self._chunks(order, cpu_order):
            for augmentation, parameters in zip(augmentations, drawn, strict=True):
                pixels = augmentation.apply(pixels, parameters[part])
            known = [self.labels] if self._weights is None else [self.labels, self._weights]
            yield from self._batches(pixels, sizes, *(of[order[part]] for of in known))

    def _order(self, seed: int, epoch: int) -> Tensor:
        generator = _generator(seed, "order", epoch)
        if self._shares is None:
            return torch.randperm(self.num_images, generator=generator)
        return torch.multinomial(self._shares, self.num_images, True, generator=generator)

    def _draw(self, seed: int, epoch: int, augmentations: Sequence[Augmentation]) -> _Drawn:
        """Draw the order ``[N]`` and parameters ``[N, ...]`` per augmentation, on the CPU."""
        order, generator = self._order(seed, epoch), _generator(seed, "augment", epoch)
        size: Any = self.size if self._shapes is None else self._shapes[order]
        drawn = []
        for augmentation in augmentations:
            drawn.append(self._pinned(augmentation.draw(len(order), size, generator)))
            size = augmentation.size_after(size)
        return self._pinned(order), drawn

    def images(self, seed: int, epoch: int, step: int) -> list[int]:
        """List the images of a step as indices into the published part; epoch and step from 1."""
        chosen = self._order(seed, epoch).split(self.sizes)[step - 1]
        return [int(i) for i in self._numbers[chosen.numpy()]]


def training_weights(recipe: RecipeConfig, images: Any, indices: Indices) -> dict[str, Any]:
    """Compute ``weights`` and ``shares`` of the `Batches` of training images."""
    chosen, given = torch.from_numpy(indices), getattr(images, "weights", None)
    weights, shares = None if given is None else given[chosen], None
    if "balanced" in (recipe.class_weights, recipe.sampler):
        labels = images.labels[chosen]
        counts = torch.bincount(labels)
        balanced = (len(labels) / (counts.count_nonzero() * counts))[labels]  # as in scikit-learn
        shares = balanced if recipe.sampler == "balanced" else None
        if recipe.class_weights == "balanced":
            weights = balanced if weights is None else balanced * weights
    return {"weights": weights, "shares": shares}


def _generator(seed: int, stream: str, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, stream, epoch))
