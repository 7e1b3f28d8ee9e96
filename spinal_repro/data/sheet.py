"""A sheet of training images with their class names, before and after a cell's augmentation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.catalog import entry_for
from spinal_repro.data.photos import Photos, read_image
from spinal_repro.data.sources import Dataset, ImageSet, load_dataset
from spinal_repro.preparation import Preparation
from spinal_repro.schema import Config

COLUMNS = 10  # classes; of more, as many evenly spread ones
ROWS = 3  # images a class
CELL = 96  # pixels
GAP = 6
LINE = 18
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (120, 120, 120)


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
    train = dataset.train
    labels = train.labels.numpy() - config.dataset.label_offset
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
    names = _names(config, dataset)
    titles = [names[label] if 0 <= label < len(names) else str(label) for label in shown.tolist()]
    published = _published(train, rows)
    prepared = _prepared(train, rows, config.preparation("train"))
    augmented = _augmented(prepared, config, seed)
    if config.dataset.source == "emnist":
        published = [pixels.transpose(0, 2, 1) for pixels in published]
        augmented = [pixels.transpose(0, 2, 1) for pixels in augmented]
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


def _published(part: ImageSet | Photos, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    """Images ``[C, H, W]`` of any size."""
    if isinstance(part, Photos):
        whole = Preparation()
        return [read_image(part.paths[row], part.channels, whole) for row in rows.tolist()]
    return list(_gather(part, rows).numpy())


def _prepared(part: ImageSet | Photos, rows: NDArray[np.int64], preparation: Preparation) -> Tensor:
    """Images ``[N, C, S, S]`` uint8 as the recipe brings them to one size."""
    if isinstance(part, Photos):
        images = [read_image(part.paths[row], part.channels, preparation) for row in rows.tolist()]
        return torch.from_numpy(np.stack(images))
    pixels = _gather(part, rows)
    resize = preparation.resize
    if resize is not None:
        size = (resize[0], resize[-1]) if isinstance(resize, list) else (resize, resize)
        if size != tuple(pixels.shape[-2:]):
            pixels = torch.nn.functional.interpolate(
                pixels.float(), size, mode="bilinear", antialias=True
            )
            pixels = pixels.round().clamp(0, 255).to(torch.uint8)
    side = preparation.size or pixels.shape[-1]
    top, left = ((length - side) // 2 for length in pixels.shape[-2:])
    return pixels[..., top : top + side, left : left + side]


def _gather(part: ImageSet, rows: NDArray[np.int64]) -> Tensor:
    chosen = torch.from_numpy(rows)
    if isinstance(part.images, Tensor):
        return part.images[chosen]
    return part.images.gather(chosen)


def _augmented(images: Tensor, config: Config, seed: int) -> list[NDArray[np.uint8]]:
    generator = torch.Generator().manual_seed(seed)
    pixels = images.float()
    for augmentation in build_augmentations(config.recipe.augment):
        drawn = augmentation.draw(len(pixels), pixels.shape[-1], generator)
        pixels = augmentation.apply(pixels, drawn)
    return list(pixels.round().clamp(0, 255).to(torch.uint8).numpy())


def _draw(
    titles: Sequence[str], blocks: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]]
) -> Image.Image:
    """Blocks one below the other; images stand class by class, ``ROWS`` each."""
    step = CELL + GAP
    height = len(blocks) * (2 * LINE + 2 * GAP + ROWS * step) + GAP
    font = ImageFont.load_default(13)
    width = max(GAP + len(titles) * step, *(int(font.getlength(t)) + 2 * GAP for t, _ in blocks))
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = GAP
    for caption, images in blocks:
        pen.text((GAP, top), caption, INK, font)
        top += LINE + GAP
        for column, title in enumerate(titles):
            left = GAP + column * step
            pen.text((left, top), _fitted(title, font), FAINT, font)
            for row in range(ROWS):
                image = _cell(images[column * ROWS + row])
                place = (
                    left + (CELL - image.width) // 2,
                    top + LINE + row * step + (CELL - image.height) // 2,
                )
                sheet.paste(image, place)
        top += LINE + ROWS * step + GAP
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
    grey = pixels.shape[0] == 1
    image = Image.fromarray(pixels[0] if grey else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    scale = CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    return image.resize(size, method).convert("RGB")
