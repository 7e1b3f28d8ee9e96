"""The rows of a file of images or image names: CSV, NumPy, Parquet."""

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spinal_repro.data.catalog import PARTS
from spinal_repro.data.image_files import OWN_SUFFIXES, part_of
from spinal_repro.data.photos import SHOWN, Row, version_of
from spinal_repro.errors import UserError

PATHS = ("path", "image_id", "id", "file", "filename", "file_name", "image")
LABELS = ("label", "target", "class")
OTHERS = ("split", "group", "fold", "weight")
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


def read_file(kind: str, path: Path, root: Path) -> Rows:
    """Read a table, npz, csv or parquet file; ``root`` may have the files that a table lists."""
    if kind == "table":
        return _table(path, root)
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    return _arrays(kind, path, "".join(map(version_of, files)))


def is_table(path: Path) -> bool:
    """Whether a CSV lists image files, instead of pixels or features."""
    known = {str(name).lower() for name in _csv(path, nrows=0)}
    rest = known - {*PATHS, *LABELS, *OTHERS}
    return bool(known.intersection(PATHS) - ({"id"} if rest else set()))


@lru_cache(maxsize=2)  # it is read several times: for its classes, and to train
def _arrays(kind: str, path: Path, _version: str) -> Rows:
    return {"npz": _npz, "csv": _features, "parquet": _parquet}[kind](path)


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
