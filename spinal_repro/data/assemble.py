"""Collects the files of a data set from downloads or from paths that the user gives."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from spinal_repro.data.archives import ArchiveError, gunzip
from spinal_repro.data.catalog import Entry, File, checksum, load_catalog
from spinal_repro.data.image_files import IMAGE_SUFFIXES, images_by_class, part_of
from spinal_repro.data.verify import file_problem, problems
from spinal_repro.errors import UserError


def assemble(entry: Entry, sources: Sequence[Path], work: Path, root: Path) -> list[str]:
    """Collect the files of a data set in ``work/ready``; list the problems.

    Folders are searched at any depth. Files in the temporary folder ``work`` are moved, all
    others copied; those that are complete in the data folder ``root`` are left out.
    """
    target = entry.path(work / "ready")
    target.mkdir(parents=True, exist_ok=True)
    if entry.is_folder:
        parts = _find_parts(entry, sources)
        if not parts:
            looked = ", ".join(f"{name}/CLASS/" for name in entry.parts.values())
            return [f"no {looked} with images ({', '.join(IMAGE_SUFFIXES)}) at any depth"]
        for part, folder in parts.items():
            for name, images in images_by_class(folder).items():
                (target / entry.parts[part] / name).mkdir(parents=True)
                for image in images:
                    _take(image, target / entry.parts[part] / name / image.name, work)
        return problems(entry, work / "ready")
    found = [source for source in sources if source.is_file()]
    for source in sources:
        found += sorted(path for path in source.rglob("*") if path.is_file())
    wrong = []
    for file in entry.contents:
        if file_problem(entry.path(root), file) is None:
            continue
        reasons = [_place(path, file, target, work) for path in _named(file.name, found)]
        if None not in reasons:
            wrong.append("; ".join(r for r in reasons if r) or f"missing {file.name}")
    return wrong or _files_of_other_sets(entry, target)


def _named(name: str, paths: Sequence[Path]) -> list[Path]:
    """List files of this name, gzipped ones last; Kaggle writes ``train-images.idx3-ubyte``."""

    def plain(path: Path) -> str:
        return path.name.removesuffix(".gz").replace(".idx", "-idx")

    return sorted(
        (p for p in paths if plain(p) == Path(name).name), key=lambda p: p.suffix == ".gz"
    )


def _place(path: Path, file: File, target: Path, work: Path) -> str | None:
    """Copy one file into a folder; if it is the wrong one, return why."""
    place = target / file.name
    if place.exists():
        return None
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz" and not file.name.endswith(".gz"):
        try:
            gunzip(path, place)
        except ArchiveError as error:
            return str(error)
    else:
        _take(path, place, work)
    wrong = file_problem(target, file)
    if wrong is not None:
        place.unlink()
        return f"{wrong} ({path})"
    return None


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
        classes = {path: names for path in named if (names := list(images_by_class(path)))}
        right = {p: n for p, n in classes.items() if entry.num_classes in (None, len(n))}
        right = right or classes
        if len({tuple(names) for names in right.values()}) > 1:
            raise UserError(
                f"{entry.title}: several folders could be the part {part}: "
                f"{', '.join(map(str, right))}; give only one"
            )
        if right:
            found[part] = min(right, key=lambda path: len(path.parts))
    return found
