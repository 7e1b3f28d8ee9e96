"""Folders of image files with one sub-folder per class: catalog data sets, or your own images."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import torch

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.image_files import IMAGE_SUFFIXES, PART_NAMES, images_by_class, part_of
from spinal_repro.data.install import ensure
from spinal_repro.data.photos import Photos
from spinal_repro.data.sources import SOURCES, Dataset, check_options
from spinal_repro.data.splits import stratified
from spinal_repro.errors import UserError
from spinal_repro.io import printable

OPTIONS = ("folder", "train", "val", "test")
TEST_FRACTION = 0.2  # of images without a test part


@SOURCES.register("folder")
def load_folder(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """List the image files in ``root/folder/PART/CLASS/``, at any depth below CLASS.

    Options of the data set: ``folder``, and the folder names of ``train``, ``val`` and ``test``.
    If none is given, parts are found by their usual names. With a validation but no test part,
    the validation part is the test part. Without parts, a stratified fifth of the images is the
    test part. Classes are numbered in the order of their names.
    """
    if download:
        ensure(config, root, download)
    folders = find_parts(config, root)
    images = {part: images_by_class(folder) for part, folder in folders.items()}
    for path in sorted(folders["train"].iterdir()):
        if path.is_dir() and path.name[0] != "." and path.name not in images["train"]:
            raise UserError(
                f"{path.resolve()} has no image files ({', '.join(IMAGE_SUFFIXES)}). Each folder "
                f"in {folders['train'].resolve()} is a class; if these are not your images, give "
                f"their folder: data.root=FOLDER"
            )
    classes = list(images["train"])
    if config.num_classes not in (None, len(classes)) or len(classes) < 2:
        raise UserError(
            f"{config.title}: {folders['train'].resolve()} has {len(classes)} class folders with "
            f"images, expected {config.num_classes or 'two or more'}; give the folder of the data "
            f"with data.root=FOLDER, or check dataset.num_classes"
        )
    if config.channels not in (1, 3):
        raise UserError(f"image files have 1 or 3 channels; dataset.channels is {config.channels}")
    parts: dict[str, Any] = {}
    for part, by_class in images.items():
        odd = sorted(set(by_class) - set(classes))
        if odd:
            raise UserError(f"{config.title}: the classes {odd} are in {folders[part]} only")
        paths = [path for files in by_class.values() for path in files]
        labels = [number for number, name in enumerate(classes) for _ in by_class.get(name, ())]
        parts[part] = Photos(paths, torch.tensor(labels) + config.label_offset, config.channels)
    if len(parts) > 1:
        return Dataset(**parts, classes=classes)
    kept, held = stratified(parts["train"].labels.numpy(), TEST_FRACTION, seed=0)
    return Dataset(parts["train"].subset(kept), parts["train"].subset(held), classes=classes)


def with_counts(config: DatasetConfig, root: Path) -> DatasetConfig:
    """Count the classes and images of a folder and, for ``dataset=folder``, set its name."""
    if config.source != "folder" or None not in (config.num_classes, config.train_size):
        return config
    dataset = load_folder(config, root, False)
    folder = (root / str(config.options.get("folder") or "")).resolve().name
    name = re.sub(r"[^a-z0-9]+", "_", folder.lower()).strip("_")
    own = config.name == "folder"
    return dataclasses.replace(
        config,
        name=f"folder_{name}" if own and name else config.name,
        title=f"Images in {printable(folder)}" if own else config.title,
        num_classes=len(dataset.classes),
        train_size=len(dataset.train),
        test_size=len(dataset.test),
        val_size=None if dataset.val is None else len(dataset.val),
    )


def find_parts(config: DatasetConfig, root: Path) -> dict[str, Path]:
    """Find the folders of the parts; without parts, ``train`` is the whole folder."""
    check_options(config, OPTIONS)
    base = root / str(config.options.get("folder") or "")
    named = {part: config.options.get(part) for part in PART_NAMES}
    found = {part: base / str(name) for part, name in named.items() if name}
    if not found and base.is_dir():
        inside = sorted((path for path in base.iterdir() if path.is_dir()), reverse=True)
        found = {part: path for path in inside if (part := part_of(path))}
    missing = [f"missing {path.name}/" for path in found.values() if not path.is_dir()]
    if found and "train" not in found:
        missing.append("missing train/")
    if not base.is_dir():
        missing = ["no such folder"]
    if missing:
        more = "" if config.name == "folder" else f". More: spinal data info {config.name}"
        raise UserError(
            f"the images of dataset={config.name} are not in {base.resolve()} ({missing[0]}). Each "
            f"part needs one folder of image files per class; give the folder of the parts: "
            f"data.root=FOLDER or the environment variable SPINAL_DATA{more}"
        )
    if "val" in found and "test" not in found:
        found["test"] = found.pop("val")
    return found or {"train": base}
