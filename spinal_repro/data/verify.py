"""Checking what lies on disk against the catalog."""

import hashlib
from pathlib import Path

from tqdm import tqdm

from spinal_repro.data.catalog import Entry, File
from spinal_repro.errors import UserError

# what torchvision's ImageFolder takes for an image
IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# what people call the parts, compared in lower case
PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval"),
    "test": ("test", "testing"),
}


def sum_of(path: Path, kind: str) -> str:
    """A checksum of a file (``md5`` or ``sha256``) in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(kind, usedforsecurity=False)
        ).hexdigest()


def wrong_sum(path: Path, file: File) -> str | None:
    """What is wrong with a file's checksum; None where it agrees or none was published."""
    for kind in ("sha256", "md5"):
        expected = getattr(file, kind)
        if expected is not None:
            found = sum_of(path, kind)
            return None if found == expected else f"its {kind} is {found}, not {expected}"
    return None


def problems(entry: Entry, root: Path, *, deep: bool = True) -> list[str]:
    """What is missing or wrong of a data set; empty where it is there as the catalog says.

    Args:
        entry: The data set.
        root: The folder data sets lie in.
        deep: Also compare checksums, or open every image; otherwise only look what is there.
    """
    if entry.is_folder:
        return _folder_problems(entry, root, deep)
    return [p for file in entry.contents if (p := file_problem(entry.path(root), file, deep))]


def file_problem(folder: Path, file: File, deep: bool) -> str | None:
    """What is wrong with one file."""
    path = folder / file.name
    if not path.is_file():
        return f"missing {file.name}"
    if file.bytes is not None and path.stat().st_size != file.bytes:
        return f"{file.name} has {path.stat().st_size:,} bytes, not {file.bytes:,}"
    if not deep:
        return None
    wrong = wrong_sum(path, file)
    if wrong is not None:
        return f"{file.name} is damaged: {wrong}"
    if "-idx" in file.name:
        from spinal_repro.data.idx import read_idx

        try:
            read_idx(path)
        except UserError as error:
            return str(error).partition(";")[0]
    return None


def _folder_problems(entry: Entry, root: Path, deep: bool) -> list[str]:
    base = entry.path(root)
    found: list[str] = []
    known: list[str] | None = None
    for part, name in entry.parts.items():
        if not (base / name).is_dir():
            found.append(f"missing {name}/")
            continue
        classes = class_names(base / name)
        if entry.num_classes not in (None, len(classes)):
            found.append(
                f"{name}/ has {len(classes)} folders of classes, expected {entry.num_classes}"
            )
        elif known is not None and classes != known:
            odd = sorted(set(classes) ^ set(known))
            found.append(f"{name}/ has other classes than the part before it: {', '.join(odd[:5])}")
        known = classes
        images = [path for cls in classes for path in image_files(base / name / cls)]
        size = entry.sizes.get(part)
        if size not in (None, len(images)):
            found.append(f"{name}/ has {len(images):,} images, expected {size:,}")
        if deep:
            found += _unreadable(images)
    return found


def class_names(folder: Path) -> list[str]:
    """The folders of a part that hold images, sorted."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    return [path.name for path in inside if next(iter(image_files(path)), None) is not None]


def image_files(folder: Path) -> list[Path]:
    """The image files below a folder, sorted."""
    inside = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)
    return sorted(path for path in inside if path.name[0] != "." and path.is_file())


def _unreadable(images: list[Path]) -> list[str]:
    from PIL import Image

    found = []
    for path in tqdm(images, desc="opening", unit=" images", disable=None, leave=False, delay=2):
        try:
            with Image.open(path) as image:
                image.verify()
        except Exception as error:  # Pillow raises many kinds for damaged files
            found.append(f"{path} is no readable image: {error}")
    return found
