"""Images that are listed in a table or stored as arrays in a file: CSV, NumPy, Parquet.

Each row is an image with a label; columns may give its part, group, fold and weight.
"""

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.catalog import PARTS
from spinal_repro.data.image_files import OWN_SUFFIXES, part_of
from spinal_repro.data.photos import SHOWN, Photos, Row, version_of
from spinal_repro.data.sources import SOURCES, Dataset, ImageSet, check_options, checked_part
from spinal_repro.data.splits import hold_out
from spinal_repro.errors import UserError

PATHS = ("path", "image_id", "id", "file", "filename", "file_name", "image")
LABELS = ("label", "target", "class")
OTHERS = ("split", "group", "fold", "weight")
TEST_FRACTION = 0.2  # of images without a test part
LEAST_SIDE = 8  # of an image in the columns of a CSV: fewer columns are features


@dataclass(frozen=True)
class Rows:
    """The rows of a file: images or image files, and the columns beside them.

    ``images`` is ``[N, C, H, W]``: uint8 pixels, or one float32 channel for each of ``features``.
    """

    columns: pd.DataFrame  # label, split, group, fold, weight: those it has
    images: NDArray[Any] | None = None
    names: Sequence[str] = ()  # of ``images``, or in a table
    files: Sequence[Path | Row] = ()  # if there are no ``images``
    features: Sequence[str] = ()
    classes: Sequence[str] = ()  # names by label, if the file has them


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
    if kind == "csv":
        known = {str(name).lower() for name in _csv(path, nrows=0)}
        rest = known - {*PATHS, *LABELS, *OTHERS}
        if known.intersection(PATHS) - ({"id"} if rest else set()):
            kind = "table"
    rows = _table(path, path.parent) if kind == "table" else _arrays(kind, path, version_of(path))
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
    if config.source == "table":
        return _table(path, root)
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    return _arrays(config.source, path, "".join(map(version_of, files)))


@lru_cache(maxsize=2)  # it is read several times: for its classes, and to train
def _arrays(kind: str, path: Path, _version: str) -> Rows:
    return {"npz": _npz, "csv": _features, "parquet": _parquet}[kind](path)


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


def _csv(path: Path, **options: Any) -> pd.DataFrame:
    """Read a CSV with a header; the names of columns that have a meaning are in lower case."""
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""], **options)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    known = {*PATHS, *LABELS, *OTHERS}
    names = [str(column).strip() for column in frame.columns]
    frame.columns = pd.Index([n.lower() if n.lower() in known else n for n in names])
    return frame


def _beside(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns beside the images, by their first names."""
    label = [name for name in LABELS if name in frame][:1]
    return frame.filter([*label, *OTHERS]).rename(columns=dict.fromkeys(label, "label"))


def _table(path: Path, root: Path) -> Rows:
    frame = _csv(path, dtype=str)
    key = next((name for name in PATHS if name in frame), None)
    if key is None or frame.empty or frame[key].isna().any():
        raise UserError(f"{path} needs a file in each row; name the column {', '.join(PATHS)}")
    names = frame[key].str.strip()
    if repeated := sorted(names[names.duplicated()]):
        raise UserError(f"{path} lists {repeated[0]} twice ({len(repeated)} repeated in all)")

    @cache
    def inside(folder: Path) -> dict[str, list[Path]]:
        """The images in a folder, by their names without suffix."""
        stems: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower() in OWN_SUFFIXES:
                stems.setdefault(path.stem, []).append(path)
        return stems

    def find(base: Path, name: str) -> list[Path]:
        file = base / name
        return [file] if file.is_file() else inside(file.parent).get(file.name, [])

    base = next((b for b in (root, path.parent) if find(b, names[0])), path.parent)
    found = [find(base, name) for name in names]
    if missing := [name for name, files in zip(names, found, strict=True) if not files]:
        raise UserError(
            f"{len(missing)} of {len(names)} files of {path} are neither in {root.resolve()} nor "
            f"beside it, e.g. {', '.join(missing[:SHOWN])}; put the table into their folder, or to "
            f"train set data.root=FOLDER"
        )
    if several := next((files for files in found if len(files) > 1), None):
        either = " or ".join(file.name for file in several)
        raise UserError(f"{path}: {several[0].stem} may be {either}; write it with its suffix")
    return Rows(_beside(frame), names=list(names), files=[files[0] for files in found])


def _features(path: Path) -> Rows:
    """Read a CSV of pixels, or of any numbers."""
    frame = _csv(path)
    names = list(map(str, frame["id"] if "id" in frame else range(1, len(frame) + 1)))
    values = frame.drop(columns=["id", *LABELS, *OTHERS], errors="ignore")
    text = [str(c) for c in values.select_dtypes(exclude=["number", "bool"])]
    if text or values.empty:
        raise UserError(
            f"{path} has {f'columns that are not numbers: {text[:SHOWN]}' if text else 'no rows'}. "
            f"Columns other than {', '.join(('id', *LABELS, *OTHERS))} are pixels or features"
        )
    array = values.to_numpy(np.float64)
    if not (finite := np.isfinite(array)).all():
        raise UserError(f"{path}: column {values.columns[finite.all(0).argmin()]} has empty cells")
    side, count = math.isqrt(array.shape[1]), array.shape[1]
    bytes_alone = ((array % 1 == 0) & (array >= 0) & (array <= 255)).all()
    if side >= LEAST_SIDE and side**2 == count and bytes_alone:
        pixels = array.astype(np.uint8).reshape(-1, 1, side, side)
        return Rows(_beside(frame), pixels, names)
    features = sorted(map(str, values.columns))  # the same in any order of the columns
    numbers = values[features].to_numpy(np.float32)[:, :, None, None]
    return Rows(_beside(frame), numbers, names, features=features)


def _npz(path: Path) -> Rows:
    """Read MedMNIST's ``train_images``, ``train_labels``, ..., or ``x``, ``y``, ``x_train``, ..."""
    try:
        with np.load(path) as file:
            arrays = {name.lower(): file[name] for name in file.files}
    except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} cannot be read as npz: {error}") from error
    pairs = [("train", "x", "y"), ("train", "images", "labels")]
    for part in PARTS:
        pairs += [(part, f"{part}_images", f"{part}_labels"), (part, f"x_{part}", f"y_{part}")]
    images, columns = [], []
    for part, key, label in pairs:
        if key not in arrays:
            continue
        images.append(_pixels(arrays[key], f"{path}: {key}"))
        columns.append(pd.DataFrame({"split": part}, index=range(len(images[-1]))))
        if (labels := arrays.get(label)) is not None:
            if labels.size != len(images[-1]) or labels.ndim > 2:
                raise UserError(
                    f"{path}: {label} must have one class for each of {len(images[-1])} images, "
                    f"got shape {list(labels.shape)}; several labels per image are not supported"
                )
            columns[-1]["label"] = labels.ravel()
    if len({array.shape[1:] for array in images}) != 1:
        raise UserError(
            f"{path} has arrays {', '.join(sorted(arrays))}; it needs images of one size as "
            f"train_images, train_labels, test_images, ..., or x, y, or x_train, y_train, ..."
        )
    pixels = np.concatenate(images)
    features = [] if pixels.dtype == np.uint8 else list(map(str, range(pixels.shape[1])))
    frame = pd.concat(columns, ignore_index=True)
    return Rows(frame, pixels, list(map(str, range(len(pixels)))), features=features)


def _pixels(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Convert to ``[N, C, H, W]`` uint8; 16 bits are divided by 257, [0, 1] is times 255."""
    if array.ndim == 2 and np.isfinite(array).all():
        return array.astype(np.float32)[:, :, None, None]
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or array.shape[2] != array.shape[3]:
        raise UserError(
            f"{where} has shape {list(array.shape)}; images are square, [N, H, W], [N, H, W, C] or "
            f"[N, C, H, W], with 1 or 3 channels"
        )
    if array.dtype == np.uint16:
        array = array // 257
    elif array.dtype.kind in "fb" and array.size and array.min() >= 0 and array.max() <= 1:
        array = (array * np.float32(255)).round()
    whole = array.dtype.kind in "ui" or (array % 1 == 0).all()
    if not (whole and array.size and array.min() >= 0 and array.max() <= 255):
        raise UserError(f"{where} has pixels that are neither 0 to 255 nor in [0, 1]")
    return np.ascontiguousarray(array, np.uint8)


def _parquet(path: Path) -> Rows:
    """Read the layout of Hugging Face: ``image`` with ``bytes`` and ``path``, and ``label``."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"{path} needs: pip install 'spinal-repro[parquet]'") from None
    files: list[Path | Row] = []
    frames, classes = [], []
    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file} cannot be read as Parquet: {error}") from error
        key = next((name for name in ("image", "img") if name in table.column_names), None)
        if key is None:
            raise UserError(f"{file} has no column image, but {', '.join(table.column_names)}")
        beside = [name for name in (*LABELS, *OTHERS) if name in table.column_names]
        frame = _beside(table.select(beside).to_pandas())
        part = part_of(Path(re.split(r"[-._]", file.name)[0]))
        if part and "split" not in frame and path.is_dir():
            frame = frame.assign(split=part)
        frames.append(frame)
        for index, image in enumerate(table[key].to_pylist()):
            about = image if isinstance(image, dict) else {"bytes": image}
            if not isinstance(content := about.get("bytes"), bytes):
                raise UserError(f"{file}: row {index + 1} of {key} has no bytes of an image")
            name, version = str(about.get("path") or index), f"{version_of(file)} {index}"
            files.append(Row(name, version, content, listed_in=file))
        with suppress(KeyError, TypeError, ValueError):
            schema = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
            classes = [str(name) for name in schema[beside[0]]["names"]]
    if not files:
        raise UserError(f"{path} has no images")
    return Rows(pd.concat(frames, ignore_index=True), files=files, classes=classes)
