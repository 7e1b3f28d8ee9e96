"""Folders of image files, one sub-folder a class: hymenoptera, or anyone's own photographs."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import datasets as tv
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from spinal_repro.config import DatasetConfig
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet
from spinal_repro.errors import UserError, unknown

OPTIONS = {
    "folder": "",
    "train": "train",
    "test": "val",
    "crop": 0.875,
    "interpolation": "bilinear",
}


@SOURCES.register("folder")
def load_folder(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """Image files in ``root/folder/train/CLASS/`` and ``root/folder/test/CLASS/``.

    Each is decoded once: its shorter side is resized to ``image_size / crop`` pixels and the
    centre of ``image_size`` pixels kept as uint8 (224 of 256 with the defaults). Classes are
    numbered in the order of their names.

    Options of the data set: ``folder``, ``train`` and ``test`` (folder names), ``crop`` (the
    centre's share of the shorter side) and ``interpolation`` (``bilinear`` or ``bicubic``).
    """
    for key in config.options:
        if key not in OPTIONS:
            raise unknown("option of a folder data set", str(key), OPTIONS)
    options = {**OPTIONS, **config.options}
    base = root / str(options["folder"])
    train = _open(base / str(options["train"]), config, base)
    test = _open(base / str(options["test"]), config, base)
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise UserError(f"{config.title}: the classes {odd} are in one of {base}'s parts only")
    if len(train.classes) != config.num_classes:
        raise UserError(
            f"{config.title} has {len(train.classes)} class folders in {base}, expected "
            f"{config.num_classes}; check dataset.num_classes"
        )
    share, method = float(options["crop"]), str(options["interpolation"])
    if not 0 < share <= 1:
        raise UserError(f"dataset.options.crop must lie in (0, 1], got {share}")
    if method not in ("bilinear", "bicubic"):
        raise unknown("value of dataset.options.interpolation", method, ("bilinear", "bicubic"))
    shape = Compose(
        [
            Resize(round(config.image_size / share), InterpolationMode(method)),
            CenterCrop(config.image_size),
        ]
    )
    return Dataset(_decode(train, config, shape), _decode(test, config, shape))


def _open(folder: Path, config: DatasetConfig, base: Path) -> tv.ImageFolder:
    if not folder.is_dir():
        raise UserError(
            f"{config.title} is not in {base.resolve()} (missing {folder.name}/). It needs a "
            f"folder of image files for each class in train and test; say where it lies: "
            f"data.root=FOLDER or the environment variable SPINAL_DATA"
        )
    try:
        return tv.ImageFolder(str(folder))
    except (FileNotFoundError, OSError) as error:
        raise UserError(f"{folder} cannot be read: {error}") from error


def _decode(part: tv.ImageFolder, config: DatasetConfig, shape: Compose) -> ImageSet:
    size, channels = config.image_size, config.channels
    mode = {1: "L", 3: "RGB"}.get(channels)
    if mode is None:
        raise UserError(f"image files have 1 or 3 channels; dataset.channels is {channels}")
    images = torch.empty(len(part.samples), channels, size, size, dtype=torch.uint8)
    for index, (path, _) in enumerate(part.samples):
        try:
            with Image.open(path) as image:
                pixels = np.array(shape(image.convert(mode)))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"the image {path} cannot be read: {error}") from error
        images[index] = torch.from_numpy(pixels).view(size, size, channels).permute(2, 0, 1)
    return ImageSet(images, torch.tensor(part.targets) + config.label_offset)
