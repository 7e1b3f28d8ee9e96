"""A contact sheet of training images, before and after a recipe's augmentation."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.config.schema import Config
from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.catalog import entry_for
from spinal_repro.data.loader import Batches
from spinal_repro.data.photos import Photos, read_image
from spinal_repro.data.preprocessing import preprocess
from spinal_repro.data.sources import Dataset, ImageSet, load_dataset

COLUMNS = 10  # classes; evenly spread ones if there are more
ROWS = 3  # images per class
CELL, GAP, LINE = 96, 6, 18  # pixels
Pixels = Sequence[NDArray[np.uint8]]


def contact_sheet(config: Config, root: Path, seed: int = 0) -> Image.Image:
    """Draw training images as published, and after one draw of the recipe's augmentation.

    The augmented images are not normalised. EMNIST, whose images are transposed (Q17), is shown
    upright.

    Args:
        config: Its data set and recipe are used.
        root: The data folder.
        seed: Selects the images and the draw.
    """
    dataset = load_dataset(config.dataset, root, config.data.download)
    labels = dataset.train.labels.numpy() - config.dataset.label_offset
    present = np.unique(labels)
    shown = present[np.linspace(0, len(present) - 1, min(COLUMNS, len(present))).astype(int)]
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    rows = np.concatenate([np.resize(shuffled[labels[shuffled] == label], ROWS) for label in shown])
    part: ImageSet | Photos
    if isinstance(dataset.train, Photos):
        paths = [dataset.train.paths[row] for row in rows]
        part = Photos(paths, dataset.train.labels[rows], dataset.train.channels)
        published = [read_image(path, part.channels, Preprocessing()) for path in paths]
    else:
        images = dataset.train.images
        assert isinstance(images, torch.Tensor)
        part = ImageSet(images[rows], dataset.train.labels[rows])
        published = list(images[rows].numpy())
    augmented = _augmented(part, config, seed)
    if config.dataset.source == "emnist":
        published = [pixels.transpose(0, 2, 1) for pixels in published]
        augmented = [pixels.transpose(0, 2, 1) for pixels in augmented]
    names = _class_names(config, dataset)
    titles = [names[label] if 0 <= label < len(names) else str(label) for label in shown.tolist()]
    drawn = ", ".join(str(entry["name"]) for entry in config.recipe.augment) or "nothing"
    side = augmented[0].shape[-1]
    above = f"{config.dataset.title}, {len(shown)} of {len(present)} classes: as published"
    below = f"after recipe {config.recipe.name} ({side} px; augmentation: {drawn})"
    return _draw(titles, [(above, published), (below, augmented)])


def _class_names(config: Config, dataset: Dataset) -> Sequence[str]:
    """Class names by label in the files, where EMNIST's letters start at 1."""
    entry = entry_for(config.dataset)
    names = list(entry.about.classes) if entry is not None else []
    if len(names) != config.dataset.num_classes:
        names = list(dataset.classes)
    return [""] * (config.dataset.options.get("split") == "letters") + names


def _augmented(part: ImageSet | Photos, config: Config, seed: int) -> Pixels:
    """Images ``[C, S, S]`` after preprocessing and augmentation."""
    cpu, preprocessing = torch.device("cpu"), config.preprocessing("train")
    with TemporaryDirectory() as cache:
        images, resize = preprocess(part, preprocessing, Path(cache), cpu)
        crop = None if resize is None else preprocessing.size
        options = {"mean": [0.0], "std": [1 / 255], "device": cpu, "resize": resize, "crop": crop}
        batches = Batches(images, np.arange(len(part)), batch_size=len(part), **options)
        [(pixels, _)] = batches.in_order()
    generator = torch.Generator().manual_seed(seed)
    for augmentation in build_augmentations(config.recipe.augment):
        drawn = augmentation.draw(len(pixels), pixels.shape[-1], generator)
        pixels = augmentation.apply(pixels, drawn)
    return list(pixels.round().clamp(0, 255).to(torch.uint8).numpy())


def _draw(titles: Sequence[str], blocks: Sequence[tuple[str, Pixels]]) -> Image.Image:
    """Draw captioned blocks one below the other, with one column per class."""
    step = CELL + GAP
    font = ImageFont.load_default(13)
    width = max(GAP + len(titles) * step, *(int(font.getlength(t)) + 2 * GAP for t, _ in blocks))
    block_height = 2 * (LINE + GAP) + ROWS * step
    sheet = Image.new("RGB", (width, len(blocks) * block_height + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (caption, images) in enumerate(blocks):
        top = GAP + number * block_height
        pen.text((GAP, top), caption, "black", font)
        for index, pixels in enumerate(images):
            column, row = divmod(index, ROWS)
            left = GAP + column * step
            if row == 0:
                title = Image.new("RGB", (CELL, LINE), "white")  # cuts long names
                ImageDraw.Draw(title).text((0, 0), titles[column], "grey", font)
                sheet.paste(title, (left, top + LINE + GAP))
            sheet.paste(_cell(pixels), (left, top + GAP + 2 * LINE + row * step))
    return sheet


def _cell(pixels: NDArray[np.uint8]) -> Image.Image:
    """Fit an image ``[C, H, W]`` into a cell; small ones keep sharp pixels."""
    colour = np.broadcast_to(pixels, (3, *pixels.shape[1:]))
    image = Image.fromarray(np.ascontiguousarray(colour.transpose(1, 2, 0)))
    method = Image.Resampling.NEAREST if max(image.size) <= CELL else Image.Resampling.LANCZOS
    return ImageOps.pad(image, (CELL, CELL), method, "white")
