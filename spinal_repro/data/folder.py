"""Folders of image files, one sub-folder a class: catalogued data sets, or anyone's own images."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.fetch import ensure
from spinal_repro.data.photos import Photos
from spinal_repro.data.sources import SOURCES, Dataset, check_options
from spinal_repro.data.splits import stratified
from spinal_repro.data.verify import IMAGES, PART_NAMES, image_files
from spinal_repro.errors import UserError
from spinal_repro.io import printable

OPTIONS = ("folder", "train", "val", "test")
TEST_FRACTION = 0.2  # of images that lie there without a test part


@dataclass(frozen=True)
class Layout:
    """Where the parts lie.

    Attributes:
        base: The folder of the data set.
        train: Folder of the train part; the base itself where there are no parts.
        val: Folder of a published validation part, if any.
        test: Folder of the test part; None where it is split off from train.
    """

    base: Path
    train: Path
    val: Path | None
    test: Path | None


@SOURCES.register("folder")
def load_folder(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """Image files in ``root/folder/PART/CLASS/``; sub-folders of a class belong to it.

    Options of the data set: ``folder`` and the folder names of ``train``, ``val`` and ``test``.
    What is not named is looked for (`PART_NAMES`). With a validation but no test part, the
    validation part is the test part. Without parts, a stratified fifth of the images is the test
    part. Classes are numbered in the order of their names.

    Raises:
        UserError: where folders are missing, empty, or have other classes than expected.
    """
    if download:
        ensure(config, root)
    layout = find_layout(config, root)
    classes = list_classes(layout.train, config)
    if config.num_classes not in (None, len(classes)):
        raise UserError(
            f"{config.title} has {len(classes)} class folders in {layout.train}, expected "
            f"{config.num_classes}; check dataset.num_classes"
        )
    train = _list_photos(layout.train, classes, config)
    if layout.test is None:
        kept, held = stratified(train.labels.numpy(), TEST_FRACTION, seed=0)
        return Dataset(_part(train, kept), _part(train, held), classes=classes)
    parts = {}
    for name, folder in (("val", layout.val), ("test", layout.test)):
        if folder is not None:
            odd = sorted(set(list_classes(folder, config)) - set(classes))
            if odd:
                raise UserError(f"{config.title}: the classes {odd} are in {folder} only")
            parts[name] = _list_photos(folder, classes, config)
    return Dataset(train, parts["test"], val=parts.get("val"), classes=classes)


def counted(config: DatasetConfig, root: Path) -> DatasetConfig:
    """The same with classes and images counted and, for anyone's own folder, its name.

    Raises:
        UserError: as `load_folder`.
    """
    if config.source != "folder" or None not in (config.num_classes, config.train_size):
        return config
    layout = find_layout(config, root)
    dataset = load_folder(config, root, False)
    name = re.sub(r"[^a-z0-9]+", "_", layout.base.resolve().name.lower()).strip("_")
    own = config.name == "folder"
    return dataclasses.replace(
        config,
        name=f"folder_{name}" if own and name else config.name,
        title=f"Images in {printable(layout.base.resolve().name)}" if own else config.title,
        num_classes=len(dataset.classes),
        train_size=len(dataset.train),
        test_size=len(dataset.test),
        val_size=None if dataset.val is None else len(dataset.val),
    )


def find_layout(config: DatasetConfig, root: Path) -> Layout:
    """Find the parts of a data set.

    Raises:
        UserError: where a folder that is named, or the whole data set, is not there.
    """
    check_options(config, OPTIONS)
    options: dict[str, Any] = {key: config.options.get(key) for key in OPTIONS}
    base = root / str(options["folder"] or "")
    found: dict[str, Path | None] = {}
    for part, names in PART_NAMES.items():
        if options[part] is not None:
            found[part] = base / str(options[part])
            if not (base / str(options[part])).is_dir():
                raise _absent(config, base, f"missing {options[part]}/")
        else:
            inside = sorted(base.iterdir()) if base.is_dir() else []
            hits = [p for p in inside if p.is_dir() and p.name.lower() in names]
            found[part] = hits[0] if hits else None
    if not base.is_dir():
        raise _absent(config, base, "no such folder")
    if any(options[part] for part in PART_NAMES):  # a catalogued layout: nothing else is guessed
        found = {part: found[part] if options[part] else None for part in PART_NAMES}
    train, val, test = found["train"], found["val"], found["test"]
    if train is None:
        if val is not None or test is not None:
            raise _absent(config, base, "missing train/")
        return Layout(base, base, None, None)
    if test is None:
        val, test = None, val
    return Layout(base, train, val, test)


def list_classes(folder: Path, config: DatasetConfig) -> list[str]:
    """Names of the class folders, sorted as torchvision's ImageFolder sorts them.

    Raises:
        UserError: where there are fewer than two.
    """
    try:
        names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error}") from error
    if len(names) < 2:
        raise UserError(
            f"{config.title}: {folder.resolve()} has {len(names)} folders of images where each "
            f"class needs one; say where the data lie: data.root=FOLDER"
        )
    return names


def _list_photos(folder: Path, classes: list[str], config: DatasetConfig) -> Photos:
    """The image files of a part, class by class, each in the order of its names."""
    if config.channels not in (1, 3):
        raise UserError(f"image files have 1 or 3 channels; dataset.channels is {config.channels}")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = image_files(folder / name) if (folder / name).is_dir() else []
        if not files and folder.name.lower() in PART_NAMES["train"]:
            raise UserError(f"{folder / name} holds no images ({', '.join(IMAGES)})")
        paths += files
        labels += [label] * len(files)
    if not paths:
        raise UserError(f"{folder} holds no images ({', '.join(IMAGES)})")
    return Photos(paths, torch.tensor(labels) + config.label_offset, config.channels)


def _part(photos: Photos, indices: Any) -> Photos:
    return Photos([photos.paths[i] for i in indices], photos.labels[indices], photos.channels)


def _absent(config: DatasetConfig, base: Path, what: str) -> UserError:
    return UserError(
        f"{config.title} is not in {base.resolve()} ({what}). It needs a folder of image files "
        f"for each class in each part; say where it lies: data.root=FOLDER or the environment "
        f"variable SPINAL_DATA (how to get it: spinal data info {config.name})"
    )
