"""A contact sheet of training images, before and after a recipe's augmentation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from spinal_repro.config.schema import Config
from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.preprocessing import batches_of
from spinal_repro.data.sources import Dataset, load_dataset
from spinal_repro.data.splits import Split
from spinal_repro.errors import UserError

COLUMNS = 10  # classes; evenly spread ones if there are more
ROWS = 3  # images per class
CELL, GAP, LINE = 96, 6, 18  # pixels


def contact_sheet(config: Config, root: Path, seed: int = 0) -> Image.Image:
    """Draw training images before and after one random augmentation of the recipe.

    Images are resized by the recipe and not normalised; EMNIST, whose images are transposed (Q17),
    is shown upright. ``seed`` selects the images and the draw.
    """
    dataset = load_dataset(config.dataset, root, config.data.download)
    if dataset.features:
        raise UserError(f"{config.dataset.title} has features, not images")
    labels = dataset.train.labels.numpy()
    present = np.unique(labels)
    names = dataset.classes if len(dataset.classes) == len(present) else present
    columns = np.linspace(0, len(present) - 1, min(COLUMNS, len(present))).astype(int)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    rows = [np.resize(shuffled[labels[shuffled] == label], ROWS) for label in present[columns]]
    chosen = dataset.train.subset(np.concatenate(rows))
    chosen = replace(chosen, labels=torch.arange(len(chosen)))  # to undo the order of an epoch
    split = Split(np.arange(len(chosen)), np.arange(0), np.arange(0))
    options: Any = {"mean": [0.0], "std": [1 / 255], "device": torch.device("cpu")}
    with TemporaryDirectory() as cache:
        options |= {"training": True, "runs": Path(cache)}
        batches = batches_of(config, Dataset(chosen, chosen), split, "train", **options)
        before = torch.cat([images for images, _ in batches.in_order()])
        augmented = batches.epoch(seed, 1, build_augmentations(config.recipe.augment))
        after, order = map(torch.cat, zip(*augmented, strict=True))
    after = after[order.argsort()]
    if config.dataset.source == "emnist":
        before, after = before.mT, after.mT
    titles = [str(names[column]) for column in columns]
    used = ", ".join(str(entry["name"]) for entry in config.recipe.augment) or "nothing"
    above = f"{config.dataset.title}, {len(columns)} of {len(present)} classes"
    below = f"augmented as in recipe {config.recipe.name}: {used} ({after.shape[-1]} px)"
    return _draw(titles, [(above, before), (below, after)])


def _draw(titles: Sequence[str], blocks: Sequence[tuple[str, Tensor]]) -> Image.Image:
    """Draw captioned blocks one below the other, with one column per class."""
    step, font = CELL + GAP, ImageFont.load_default(13)
    width = max(GAP + len(titles) * step, *(int(font.getlength(t)) + 2 * GAP for t, _ in blocks))
    height = 2 * (LINE + GAP) + ROWS * step
    sheet = Image.new("RGB", (width, len(blocks) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (caption, images) in enumerate(blocks):
        top = GAP + number * height
        draw.text((GAP, top), caption, "black", font)
        for index, pixels in enumerate(images.round().clamp(0, 255).to(torch.uint8)):
            column, row = divmod(index, ROWS)
            left = GAP + column * step
            if row == 0:
                title = Image.new("RGB", (CELL, LINE), "white")  # cuts long names
                ImageDraw.Draw(title).text((0, 0), titles[column], "grey", font)
                sheet.paste(title, (left, top + LINE + GAP))
            cell = Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy().copy())
            sharp = max(cell.size) <= CELL
            method = Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS
            cell = ImageOps.pad(cell, (CELL, CELL), method, "white")
            sheet.paste(cell, (left, top + GAP + 2 * LINE + row * step))
    return sheet
