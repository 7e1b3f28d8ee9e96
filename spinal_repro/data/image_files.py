"""Finding image files, and their folders by part and class."""

from pathlib import Path

# As in torchvision's ImageFolder.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Usual folder names of each part, in lower case.
PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval"),
    "test": ("test", "testing"),
}


def image_files(folder: Path) -> list[Path]:
    """List the image files below a folder, sorted, without hidden ones."""
    inside = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in inside if path.name[0] != "." and path.is_file())


def images_by_class(folder: Path) -> dict[str, list[Path]]:
    """List the image files below each sub-folder that has any; all sorted."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    return {path.name: files for path in inside if (files := image_files(path))}


def part_of(folder: Path) -> str | None:
    """Return the part that a folder's name stands for: ``train``, ``val``, ``test`` or None."""
    name = folder.name.lower()
    return next((part for part, names in PART_NAMES.items() if name in names), None)
