"""Comparing data sets on disk with the catalog."""

from pathlib import Path

from PIL import Image
from tqdm import tqdm

from spinal_repro.data.catalog import Entry, File
from spinal_repro.data.image_files import images_by_class
from spinal_repro.errors import UserError


def problems(entry: Entry, root: Path, *, open_images: bool = False) -> list[str]:
    """List the problems; empty if the data set matches the catalog."""
    if entry.is_folder:
        return _folder_problems(entry, root, open_images)
    return [p for file in entry.contents if (p := file_problem(entry.path(root), file))]


def file_problem(folder: Path, file: File) -> str | None:
    """Describe what is wrong with one file; None if it is as published."""
    path = folder / file.name
    if not path.is_file():
        return f"missing {file.name}"
    if file.bytes is not None and path.stat().st_size != file.bytes:
        return f"{file.name} has {path.stat().st_size:,} bytes, not {file.bytes:,}"
    wrong = file.checksum_mismatch(path)
    if wrong is not None:
        return f"{file.name} is damaged: {wrong}"
    if "-idx" in file.name:
        from spinal_repro.data.idx import read_idx

        try:
            read_idx(path)
        except UserError as error:
            return str(error).partition(";")[0]
    return None


def _folder_problems(entry: Entry, root: Path, open_images: bool) -> list[str]:
    base = entry.path(root)
    found: list[str] = []
    known: list[str] | None = None
    for part, name in entry.parts.items():
        if not (base / name).is_dir():
            found.append(f"missing {name}/")
            continue
        by_class = images_by_class(base / name)
        classes, images = list(by_class), [path for files in by_class.values() for path in files]
        wanted = (part == "test" and entry.test_outputs) or entry.num_classes
        if wanted not in (None, len(classes)):
            found.append(f"{name}/ has {len(classes)} class folders, expected {wanted}")
        elif known is not None and classes != known[:wanted]:
            odd = sorted(set(classes) ^ set(known))
            found.append(f"{name}/ has other classes than the previous part: {', '.join(odd[:5])}")
        known = classes
        size = entry.sizes[part]
        if size not in (None, len(images)):
            found.append(f"{name}/ has {len(images):,} images, expected {size:,}")
        opened = images if open_images else []
        for path in tqdm(opened, "opening", unit=" images", disable=None, leave=False, delay=2):
            try:
                with Image.open(path) as image:
                    image.load()  # verify() misses a file that is cut short
            except Exception as error:  # Pillow raises many types for damaged files
                found.append(f"{path} cannot be read: {error}")
    return found
