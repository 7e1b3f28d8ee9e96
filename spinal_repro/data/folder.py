"""Folders of image files with one sub-folder per class: catalog data sets, or your own images."""

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.catalog import PARTS, entry_for
from spinal_repro.data.containers import TEST_FRACTION
from spinal_repro.data.image_files import class_folders, is_hidden, part_of
from spinal_repro.data.install import ensure
from spinal_repro.data.photos import Photos
from spinal_repro.data.sources import SOURCES, Dataset, check_options, counted_shape, load_sources
from spinal_repro.data.splits import hold_out
from spinal_repro.errors import UserError
from spinal_repro.io import printable

OWN = ("folder", "table", "npz", "csv", "parquet")  # sources of a user's own images


def is_own(config: DatasetConfig) -> bool:
    """Whether these are a user's own images, about which the catalog says nothing."""
    return config.source in OWN and entry_for(config) is None


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
    found = {part: class_folders(folder, is_own(config)) for part, folder in folders.items()}
    classes, base = list(found["train"][0]), folders["train"].resolve()
    for path in sorted(path for path in base.iterdir() if path.is_dir()):
        inside = {part_of(folder) for folder in path.iterdir() if folder.is_dir()} - {None}
        if is_own(config) and len(inside) > 1:
            raise UserError(
                f"{path} has folders for {' and '.join(sorted(map(str, inside)))}, but each folder "
                f"in {base} is a class; give the folder of one data set: data.root={path}"
            )
        if path.name not in classes and not is_hidden(path.name):
            why = describe_left_out(class_folders(path)[1]) or "it is empty"
            raise UserError(
                f"{path} has no image files ({why}). Each folder in {base} is a class: remove this "
                f"one, or, if these are not your images, give their folder: data.root=FOLDER"
            )
    if config.num_classes not in (None, len(classes)) or len(classes) < 2:
        is_part = part_of(base) == "train" and not classes
        part = "; if train is a class, set dataset.options.train=." if is_part else ""
        raise UserError(
            f"{config.title}: {base} has {len(classes)} class folders with images, expected "
            f"{config.num_classes or 'two or more'}; give the folder of the data with "
            f"data.root=FOLDER, or check dataset.num_classes{part}"
        )
    if config.channels not in (1, 3):
        raise UserError(f"image files have 1 or 3 channels; dataset.channels is {config.channels}")
    parts: dict[str, Any] = {
        part: _photos(config, folders[part], images, classes) for part, (images, _) in found.items()
    }
    if len(parts) == 1:
        halves = hold_out(parts["train"], TEST_FRACTION, seed=0)
        parts = dict(zip(("train", "test"), map(parts["train"].subset, halves), strict=True))
    left_out = sum((others for _, others in found.values()), Counter[str]())
    return Dataset(**parts, classes=classes, left_out=left_out)


def load_new_images(config: DatasetConfig, root: Path, part: str, classes: Sequence[str]) -> Photos:
    """List the labelled images of a part, for a model of ``classes``; some may have no images.

    In a folder without parts, all images are listed.
    """
    folders = find_parts(config, root, part)
    folder = folders.get(part) or folders["train"]
    found = _photos(config, folder, class_folders(folder, own=True)[0], classes)
    if not len(found):
        raise UserError(f"{folder.resolve()} has no images in a folder for each class")
    return found


def _photos(
    config: DatasetConfig, folder: Path, images: dict[str, list[Path]], classes: Sequence[str]
) -> Photos:
    if foreign := sorted(set(images) - set(classes)):
        raise UserError(
            f"{folder.resolve()} has classes that are not among those trained on: "
            f"{shorten(', '.join(foreign), 200)}; these are {shorten(', '.join(classes), 200)}"
        )
    paths = [path for name in classes for path in images.get(name, ())]
    labels = [number for number, name in enumerate(classes) for _ in images.get(name, ())]
    return Photos(paths, torch.tensor(labels).long() + config.label_offset, config.channels)


def describe_left_out(others: Counter[str]) -> str:
    """Count the files that are not read as images, by suffix; empty if there are none."""
    kinds = ", ".join(f"{suffix} {count:,}" for suffix, count in others.most_common(5))
    files = f"{others.total():,} file{'s' * (others.total() > 1)}"
    return f"{files} left out: {printable(kinds)}" if others else ""


def with_counts(config: DatasetConfig, root: Path) -> tuple[DatasetConfig, dict[str, str]]:
    """Count the classes and images of a folder or file and set its name, if they are one's own.

    Returns the configuration; for one's own images, also SHA-256 of class names, images, labels.
    """
    own = is_own(config)
    if config.source not in OWN or not (own or None in (config.num_classes, config.train_size)):
        return config, {}
    dataset = load_sources()[config.source](config, root, False)
    folder = (root / str(config.options.get("folder") or "")).resolve().name
    if config.file:
        folder = Path(config.file).resolve().stem
    name = re.sub(r"[^a-z0-9]+", "_", folder.lower()).strip("_")
    unnamed = config.name == config.source
    parts = {part: images for part in PARTS if (images := getattr(dataset, part)) is not None}
    sizes: Any = {f"{part}_size": len(images) for part, images in parts.items()}
    counted = dataclasses.replace(
        config,
        name=f"{config.source}_{name}" if unnamed and name else config.name,
        title=f"Images in {printable(folder)}" if unnamed else config.title,
        num_classes=len(dataset.classes),
        **{key: size for key, size in sizes.items() if getattr(config, key) is None},
        **counted_shape(config, dataset),
    )
    if not own:
        return counted, {}
    contents = [*dataset.classes, *dataset.features, *(images.hash for images in parts.values())]
    return counted, {"images": hashlib.sha256("\0".join(contents).encode()).hexdigest()}


def find_parts(config: DatasetConfig, root: Path, needed: str = "train") -> dict[str, Path]:
    """Find the folders of the parts; without parts, ``train`` is the whole folder."""
    check_options(config, ("folder", *PARTS))
    base = root / str(config.options.get("folder") or "")
    found = {part: base / str(name) for part in PARTS if (name := config.options.get(part))}
    if not found and base.is_dir():
        inside = sorted((path for path in base.iterdir() if path.is_dir()), reverse=True)
        found = {part: path for path in inside if (part := part_of(path))}
    if needed != "val" and "val" in found and "test" not in found:
        found["test"] = found.pop("val")
    missing = [f"missing {path.name}/" for path in found.values() if not path.is_dir()]
    if found and needed not in found:
        missing.append(f"missing {needed}/")
    if not base.is_dir():
        missing = ["no such folder"]
    if missing:
        more = "" if is_own(config) else f". More: spinal data info {config.name}"
        raise UserError(
            f"the images of dataset={config.name} are not in {base.resolve()} ({missing[0]}). Each "
            f"part needs one folder of image files per class; give the folder of the parts: "
            f"data.root=FOLDER (of a finished run: --root FOLDER) or SPINAL_DATA=FOLDER{more}"
        )
    return found or {"train": base}
