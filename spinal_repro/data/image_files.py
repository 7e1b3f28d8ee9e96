"""Finding image files, and their folders by part and class.

One rule for every layout: hidden files and folders and ``__MACOSX`` are left out at any depth,
links are followed.
"""

import os
from collections import Counter
from pathlib import Path

from spinal_repro.errors import UserError

# As in torchvision's ImageFolder: the images of published data sets are counted with these.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# One's own images may be any that Pillow reads; of an animation that is the first picture.
OWN_SUFFIXES = (*IMAGE_SUFFIXES, ".gif", ".jfif", ".jpe", ".avif", ".jp2", ".pbm", ".pnm", ".tga")
# Usual folder names of each part, in lower case.
PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval"),
    "test": ("test", "testing"),
}


def is_hidden(name: str) -> bool:
    """Whether files or folders of this name are left out."""
    return name.startswith(".") or name == "__MACOSX"


def files_below(folder: Path) -> list[Path]:
    """List the files below a folder, sorted."""
    found = []
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:] = [n for n in folders if not is_hidden(n) and not _leads_back(place, n)]
        found += [Path(place, name) for name in names if not is_hidden(name)]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}")


def _leads_back(place: str, name: str) -> bool:
    """Whether a folder is a link to one that contains it."""
    path = Path(place, name)
    return path.is_symlink() and Path(place).resolve().is_relative_to(path.resolve())


def image_files(folder: Path) -> list[Path]:
    """List the image files below a folder, sorted."""
    return [path for path in files_below(folder) if path.suffix.lower() in OWN_SUFFIXES]


def class_folders(folder: Path, own: bool = False) -> tuple[dict[str, list[Path]], Counter[str]]:
    """List the image files in the folder of each class, at any depth, all sorted.

    Returns them by class, and the number of other files by suffix. ``own`` tells whether these are
    a user's own images.
    """
    images: dict[str, list[Path]] = {}
    others, depth = Counter[str](), len(folder.parts)
    suffixes = OWN_SUFFIXES if own else IMAGE_SUFFIXES
    for path in files_below(folder):
        suffix, inside = path.suffix.lower(), path.parts[depth:]
        if suffix in suffixes and len(inside) > 1:
            images.setdefault(inside[0], []).append(path)
        else:
            others[suffix or path.name] += 1
    return images, others


def part_of(folder: Path) -> str | None:
    """Return the part that a folder's name stands for: ``train``, ``val``, ``test`` or None."""
    name = folder.name.lower()
    return next((part for part, names in PART_NAMES.items() if name in names), None)
