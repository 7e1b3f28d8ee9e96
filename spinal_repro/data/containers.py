"""Images that are listed in a table or stored as arrays in a file: CSV, NumPy, Parquet.

Each row is an image with a label; columns may give its part, group, fold and weight.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.catalog import PARTS
from spinal_repro.data.image_files import part_of
from spinal_repro.data.photos import SHOWN, Photos, Row
from spinal_repro.data.rows import LABELS, Rows, is_table, read_file
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, check_options, checked_part
from spinal_repro.data.splits import hold_out
from spinal_repro.errors import UserError

TEST_FRACTION = 0.2  # of images without a test part


def _load(config: DatasetConfig, root: Path, download: bool) -> Dataset:
    """Read the rows of ``config.file``; parts are found as in folders of images."""
    check_options(config, [])
    rows, file = _read(config, root), config.file
    if "label" not in (named := rows.columns):
        names = "y or train_labels" if config.source == "npz" else " or ".join(LABELS)
        raise UserError(f"{file} has no labels; call them {names}")
    columns = _columns(named, f"{file}")
    part = np.full(len(named), "train")
    if "split" in named:
        kinds = named["split"].astype(str).str.strip()
        part = kinds.map(lambda kind: part_of(Path(kind)) or kind).to_numpy(str)
        if wrong := set(part) - set(PARTS):
            raise UserError(f"{file} has split '{min(wrong)}'; write train, val or test")
    if "test" not in part:
        part[part == "val"] = "test"
    at: dict[str, Any] = {name: np.flatnonzero(part == name) for name in PARTS if name in part}
    classes, labels = _numbered(named["label"])
    if rows.classes:  # the labels are numbers
        classes, labels = list(rows.classes), np.array(named["label"], np.int64)
    if config.num_classes not in (None, len(classes)) or len(classes) < 2:
        found = f"{len(classes)} classes, expected {config.num_classes or 'two or more'}"
        raise UserError(f"{file} has {found}; check its labels and dataset.num_classes")
    if foreign := set(labels.tolist()) - set(labels[at.get("train", [])].tolist()):
        names = ", ".join(str(dict(enumerate(classes)).get(n, n)) for n in [*foreign][:SHOWN])
        raise UserError(f"{file} has classes that no row with split train has: {names}")
    columns["labels"] = torch.from_numpy(labels) + config.label_offset
    whole: Any = Photos(rows.files, channels=config.channels, **columns)
    if rows.images is not None:
        whole = ImageSet(torch.from_numpy(rows.images), **columns)
    elif config.channels not in (1, 3):
        raise UserError(f"image files have 1 or 3 channels, not {config.channels}")
    if len(at) == 1:
        at["train"], at["test"] = hold_out(whole, TEST_FRACTION, seed=0)
    parts: dict[str, Any] = {part: whole.subset(indices) for part, indices in at.items()}
    return Dataset(**parts, classes=classes, features=rows.features)


for _name in ("table", "npz", "csv", "parquet"):
    SOURCES.register(_name)(_load)


def load_new_rows(
    config: DatasetConfig, root: Path, classes: Sequence[str], trained_on: dict[str, Any]
) -> ImageSet | Photos:
    """Read all labelled rows of another file, for a model of ``classes`` and a record's data."""
    found = _load(replace(config, num_classes=None), root, False)
    foreign = sorted(set(found.classes) - set(classes))
    if foreign or list(found.features) != trained_on.get("features", []):
        why = f"has other classes: {', '.join(foreign[:SHOWN])}" if foreign else "has other columns"
        raise UserError(f"{config.file} {why}; it needs those of the file that was trained on")
    numbers = torch.tensor([list(classes).index(name) for name in found.classes])
    images = replace(found.pool, labels=numbers[found.pool.labels - config.label_offset])
    return checked_part(images, replace(config, train_size=None), "train")


def read_unlabelled(path: Path) -> list[Path | Row]:
    """Read the images of a CSV, npz or Parquet file to be classified; another file is an image."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("csv", "npz", "parquet"):
        return [path]
    if kind == "csv" and is_table(path):
        kind = "table"
    rows = read_file(kind, path, path.parent)
    if rows.images is not None:
        pairs = zip(rows.names, rows.images, strict=True)
        return [Row(n, pixels=a, features=rows.features, listed_in=path) for n, a in pairs]
    if kind == "parquet":
        return list(rows.files)
    pairs = zip(rows.names, rows.files, strict=True)
    return [Row(name, file=file, listed_in=path) for name, file in pairs]


def feature_values(row: Path | Row, features: Sequence[str]) -> NDArray[np.float32]:
    """Select the values ``[F, 1, 1]`` of one row by the names of columns."""
    found: dict[str, float] = {}
    if isinstance(row, Row) and row.features:
        found = dict(zip(row.features, row.pixels.ravel(), strict=True))
    missing = [name for name in features if name not in found]
    if missing or not features:
        needs = f"the columns {', '.join(missing[:SHOWN])}" if missing else "images, not features"
        raise UserError(f"{row}: this run needs {needs}")
    return np.array([found[name] for name in features], np.float32).reshape(-1, 1, 1)


def _read(config: DatasetConfig, root: Path) -> Rows:
    key = "data.table" if config.source == "table" else "data.file"
    if not config.file:
        raise UserError(f"dataset={config.name} needs its file: {key}=FILE")
    path = next((p for p in (Path(config.file), root / config.file) if p.exists()), None)
    if path is None:
        raise UserError(f"there is no file {config.file}; give it with {key}=FILE")
    return read_file(config.source, path, root)


def _columns(named: pd.DataFrame, file: str) -> dict[str, Tensor]:
    """Weights, groups and folds as tensors; refuses cells that are empty."""
    for name in named:
        if (empty := named[name].isna().to_numpy()).any():
            raise UserError(f"{file}: column {name} is empty in row {empty.argmax() + 1}")
    given = [name for name in ("group", "fold") if name in named]
    found = {f"{name}s": torch.from_numpy(_numbered(named[name])[1]) for name in given}
    if "weight" in named:
        weights = pd.to_numeric(named["weight"], errors="coerce").to_numpy(np.float32)
        if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.max() > 0):
            raise UserError(f"{file}: weight must be numbers of 0 or more, not all 0")
        found["weights"] = torch.from_numpy(weights)
    return found


def _numbered(values: "pd.Series[Any]") -> tuple[list[str], NDArray[np.int64]]:
    """Sort the different values, numbers as numbers; return them as text, and those of each row."""
    numbers = pd.to_numeric(values, errors="coerce")
    if values.dtype == bool or numbers.isna().any():
        values = values.astype(str).str.strip()
    else:
        values = numbers.astype("int64") if (numbers % 1 == 0).all() else numbers
    found, codes = np.unique(values.to_numpy(), return_inverse=True)
    return [str(value) for value in found], codes.astype(np.int64)
