"""Measures batches of photographs: our loader against ImageFolder and DataLoader.

Both return the same: the train part, RandomResizedCrop, RandomHorizontalFlip and Normalize.
Contestants take turns in one process; figures are medians with their range. The cache is written
before (its time is printed), so this is the cost of every epoch but the first. The plain loop
decodes every image in every epoch.

    python scripts/benchmark_photos.py FOLDER [--size 224] [--batch 32] [--workers 0 2]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from spinal_repro.config.compose import compose
from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.folder import find_parts, load_folder
from spinal_repro.data.loader import Batches
from spinal_repro.data.sources import ImageSet

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def seconds(
    batches: Callable[[int], Iterable[tuple[torch.Tensor, torch.Tensor]]], epoch: int
) -> float:
    """Return the seconds of one epoch without training."""
    started = time.perf_counter()
    for images, _ in batches(epoch):
        assert images.dtype == torch.float32
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with train/CLASS/ or CLASS/ folders of images")
    parser.add_argument("--size", type=int, default=224, help="side in pixels (default: 224)")
    parser.add_argument("--batch", type=int, default=32, help="default: 32")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="default: 0 2")
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each (default: 3)")
    given = parser.parse_args()

    config = compose(["dataset=folder"]).dataset
    photos = load_folder(config, given.folder, False).train
    size, larger = given.size, round(given.size * 256 / 224)
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        preprocessing = Preprocessing(resize=larger, crop=larger)
        decoded = photos.decode(preprocessing, Path(cache))
        once = time.perf_counter() - started
        ours = Batches(
            ImageSet(decoded, photos.labels),
            np.arange(len(photos)),
            batch_size=given.batch,
            mean=MEAN,
            std=STD,
            device=torch.device("cpu"),
        )
        augment = build_augmentations([{"name": "resized_crop", "size": size}, {"name": "hflip"}])
        plain = datasets.ImageFolder(
            str(find_parts(config, given.folder)["train"]),
            transforms.Compose(
                [
                    transforms.RandomResizedCrop(size),
                    transforms.RandomHorizontalFlip(),
                    transforms.ToTensor(),
                    transforms.Normalize(MEAN, STD),
                ]
            ),
        )
        contestants = {"ours, from the cache": lambda epoch: ours.epoch(0, epoch, augment)}
        for workers in given.workers:
            loader = DataLoader(plain, given.batch, shuffle=True, num_workers=workers)
            contestants[f"ImageFolder, {workers} workers"] = lambda _, loader=loader: loader
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for epoch in range(1, given.repeats + 1):
            for name, batches in contestants.items():
                times[name].append(seconds(batches, epoch))
    print(
        f"{len(photos)} images, {size} px, batch {given.batch}, "
        f"{torch.get_num_threads()} threads; cache written once in {once:.1f} s "
        f"({len(photos) / once:,.0f} images/s)"
    )
    base = statistics.median(times["ours, from the cache"])
    for name, measured in times.items():
        low, middle, high = (
            len(photos) / t for t in (max(measured), statistics.median(measured), min(measured))
        )
        ratio = statistics.median(measured) / base
        print(f"{name:24} {middle:8,.0f} images/s ({low:,.0f} to {high:,.0f})  1/{ratio:.2f}")


if __name__ == "__main__":
    main()
