"""Collects the files of a data set from downloads, archives or paths, and verifies them."""

import gzip
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from spinal_repro.data.catalog import Entry, File, load_catalog
from spinal_repro.data.image_files import IMAGE_SUFFIXES, class_folders, part_of
from spinal_repro.errors import UserError
from spinal_repro.io import checksum

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


class ArchiveError(UserError):
    """An archive that is damaged or would write outside its folder."""


def is_archive(path: Path) -> bool:
    """Whether the file name is that of a zip or tar archive."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip or tar archive into a folder; nothing is written outside it."""
    target.mkdir(parents=True, exist_ok=True)
    with _reading(archive):
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(target)  # puts members with .. inside
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="data")  # refuses them


def gunzip(path: Path, target: Path) -> None:
    """Unpack one gzipped file."""
    with _reading(path), gzip.open(path) as source, target.open("wb") as out:
        shutil.copyfileobj(source, out, 2**20)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the errors of damaged archives into one; errors of the disk, with a number, stay."""
    try:
        yield
    except Exception as error:  # a damaged archive raises many types
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArchiveError(f"{path} is damaged or not a safe archive") from error


def problems(entry: Entry, root: Path, *, open_images: bool = False) -> list[str]:
    """List the problems; empty if the data set matches the catalog."""
    if entry.is_folder:
        return _folder_problems(entry, root, open_images)
    return [p for file in entry.contents if (p := file.problem(entry.path(root)))]


def _folder_problems(entry: Entry, root: Path, open_images: bool) -> list[str]:
    base = entry.path(root)
    found: list[str] = []
    known: list[str] | None = None
    for part, name in entry.parts.items():
        if not (base / name).is_dir():
            found.append(f"missing {name}/")
            continue
        by_class, _ = class_folders(base / name)
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


def assemble(entry: Entry, sources: Sequence[Path], work: Path, root: Path) -> list[str]:
    """Collect the files of a data set in ``work/ready``; list the problems.

    Folders are searched at any depth. Files in the temporary folder ``work`` are moved, all
    others copied; those that are complete in the data folder ``root`` are left out.
    """
    target = entry.path(work / "ready")
    target.mkdir(parents=True, exist_ok=True)
    if entry.is_folder:
        if not (parts := _find_parts(entry, sources)):
            looked = ", ".join(f"{name}/CLASS/" for name in entry.parts.values())
            return [f"no {looked} with images ({', '.join(IMAGE_SUFFIXES)}) at any depth"]
        for part, folder in parts.items():
            for name, images in class_folders(folder)[0].items():
                (target / entry.parts[part] / name).mkdir(parents=True)
                for image in images:
                    _take(image, target / entry.parts[part] / name / image.name, work)
        return problems(entry, work / "ready")
    found = [p for source in sources for p in (source, *sorted(source.rglob("*"))) if p.is_file()]
    wrong = []
    for file in entry.contents:
        if file.problem(entry.path(root)) is not None:
            wrong += _place(file, found, target, work)
    return wrong or _files_of_other_sets(entry, target)


def _place(file: File, found: Sequence[Path], target: Path, work: Path) -> list[str]:
    """Copy the first correct one among files of this name; if there is none, list the reasons."""
    wrong = []  # Kaggle writes ``train-images.idx3-ubyte``
    same = [p for p in found if p.name.removesuffix(".gz").replace(".idx", "-idx") == file.name]
    for path in sorted(same, key=lambda path: path.suffix == ".gz"):
        if path.suffix == ".gz":
            gunzip(path, target / file.name)
        else:
            _take(path, target / file.name, work)
        if (problem := file.problem(target)) is None:
            return []
        (target / file.name).unlink()
        wrong.append(f"{problem} ({path})")
    return wrong or [f"missing {file.name}"]


def _take(path: Path, place: Path, work: Path) -> None:
    """Move a temporary file, copy a user's file."""
    if path.is_relative_to(work):
        path.rename(place)
    else:
        shutil.copyfile(path, place)


def _files_of_other_sets(entry: Entry, folder: Path) -> list[str]:
    """Find files of another data set with the same names, as in the MNIST family."""
    unchecked = [file for file in entry.contents if file.md5 is None and file.sha256 is None]
    found = {checksum(path, "sha256"): f for f in unchecked if (path := folder / f.name).is_file()}
    return [
        f"{found[content.sha256].name} belongs to {other.title}"
        for other in load_catalog().values()
        for content in other.contents
        if other.key != entry.key and content.sha256 in found
    ]


def _find_parts(entry: Entry, sources: Sequence[Path]) -> dict[str, Path]:
    """Find the folder of each part, which contains one folder of images per class."""
    folders = [path for source in sources for path in (source, *source.rglob("*"))]
    found = {}
    for part, name in entry.parts.items():
        named = [path for path in folders if part_of(path) == part_of(Path(name)) and path.is_dir()]
        classes = {path: names for path in named if (names := list(class_folders(path)[0]))}
        right = {p: n for p, n in classes.items() if entry.num_classes in (None, len(n))} or classes
        if len({tuple(names) for names in right.values()}) > 1:
            several = f"several folders could be the part {part}: {', '.join(map(str, right))}"
            raise UserError(f"{entry.title}: {several}; give only one")
        if right:
            found[part] = min(right, key=lambda path: len(path.parts))
    return found
