"""A sheet of training images with their class names, before and after a cell's augmentation."""

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
from spinal_repro.data.preprocessing import prepared
from spinal_repro.data.sources import Dataset, ImageSet, load_dataset

COLUMNS = 10  # classes; of more, as many evenly spread ones
ROWS = 3  # images a class
CELL = 96  # pixels
GAP = 6
LINE = 18
INK, FAINT = (20, 20, 20), (120, 120, 120)
Pixels = Sequence[NDArray[np.uint8]]


def contact_sheet(config: Config, root: Path, seed: int = 0) -> Image.Image:
    """Draw the sheet of a cell.

    Three training images of up to ten classes, as they are published and as they enter the
    network after one draw of the cell's augmentation (not normalised). EMNIST, whose images are
    transposed (Q17), is turned upright here and nowhere else.

    Args:
        config: A composed cell; its data set, preparation and augmentation are used.
        root: The folder data sets lie in.
        seed: Which images, and which draw.

    Raises:
        UserError: where the data set is not there.
    """
    dataset = load_dataset(config.dataset, root, config.data.download)
    labels = dataset.train.labels.numpy() - config.dataset.label_offset
    present = np.unique(labels)
    shown = present[np.linspace(0, len(present) - 1, min(COLUMNS, len(present))).astype(int)]
    random = np.random.default_rng(seed)
    chosen = [
        random.choice(np.flatnonzero(labels == label), ROWS, replace=False)
        if (labels == label).sum() >= ROWS
        else np.resize(np.flatnonzero(labels == label), ROWS)
        for label in shown
    ]
    rows = np.concatenate(chosen)
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
        published, augmented = (
            [pixels.transpose(0, 2, 1) for pixels in block] for block in (published, augmented)
        )
    names = _names(config, dataset)
    titles = [names[label] if 0 <= label < len(names) else str(label) for label in shown.tolist()]
    drawn = ", ".join(str(entry["name"]) for entry in config.recipe.augment) or "nothing"
    many = "" if len(shown) == len(present) else f"{len(shown)} of {len(present)} classes, "
    side = augmented[0].shape[-1]
    return _draw(
        titles,
        [
            (f"{config.dataset.title}: {many}training images as published", published),
            (f"as recipe {config.recipe.name} gives them ({side} px; drawn: {drawn})", augmented),
        ],
    )


def _names(config: Config, dataset: Dataset) -> Sequence[str]:
    """Class names by label as the files number them."""
    entry = entry_for(config.dataset)
    names = list(entry.about.classes) if entry is not None else []
    if len(names) != config.dataset.num_classes:
        names = list(dataset.classes)
    first = 1 if config.dataset.options.get("split") == "letters" else 0
    return [""] * first + names


def _augmented(part: ImageSet | Photos, config: Config, seed: int) -> Pixels:
    """Images ``[C, S, S]`` as the recipe brings them to one size and augments them."""
    cpu, preprocessing = torch.device("cpu"), config.preprocessing("train")
    with TemporaryDirectory() as cache:
        images, resize = prepared(part, preprocessing, Path(cache), cpu)
        batches = Batches(
            images,
            np.arange(len(part)),
            batch_size=len(part),
            mean=[0.0],
            std=[1 / 255],
            device=cpu,
            resize=resize,
            crop=None if resize is None else preprocessing.size,
        )
        [(pixels, _)] = batches.in_order()
    generator = torch.Generator().manual_seed(seed)
    for augmentation in build_augmentations(config.recipe.augment):
        drawn = augmentation.draw(len(pixels), pixels.shape[-1], generator)
        pixels = augmentation.apply(pixels, drawn)
    return list(pixels.round().clamp(0, 255).to(torch.uint8).numpy())


def _draw(titles: Sequence[str], blocks: Sequence[tuple[str, Pixels]]) -> Image.Image:
    """Blocks one below the other; images stand class by class, ``ROWS`` each."""
    step = CELL + GAP
    font = ImageFont.load_default(13)
    width = max(GAP + len(titles) * step, *(int(font.getlength(t)) + 2 * GAP for t, _ in blocks))
    block_height = 2 * (LINE + GAP) + ROWS * step
    sheet = Image.new("RGB", (width, len(blocks) * block_height + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (caption, images) in enumerate(blocks):
        top = GAP + number * block_height
        pen.text((GAP, top), caption, INK, font)
        for index, pixels in enumerate(images):
            column, row = divmod(index, ROWS)
            left = GAP + column * step
            if row == 0:
                pen.text((left, top + LINE + GAP), _fitted(titles[column], font), FAINT, font)
            sheet.paste(_cell(pixels), (left, top + GAP + 2 * LINE + row * step))
    return sheet


def _fitted(title: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """A class name cut to the width of a cell."""
    if font.getlength(title) <= CELL:
        return title
    while title and font.getlength(f"{title}…") > CELL:
        title = title[:-1]
    return f"{title}…"


def _cell(pixels: NDArray[np.uint8]) -> Image.Image:
    """An image ``[C, H, W]`` in the size of a cell: small ones keep sharp pixels."""
    colour = np.broadcast_to(pixels, (3, *pixels.shape[1:]))
    image = Image.fromarray(np.ascontiguousarray(colour.transpose(1, 2, 0)))
    method = Image.Resampling.NEAREST if max(image.size) <= CELL else Image.Resampling.LANCZOS
    return ImageOps.pad(image, (CELL, CELL), method, "white")
