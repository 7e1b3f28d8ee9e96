"""From files anywhere to a data set in its place: whole, checked, or not at all.

Everything is put together in a hidden folder beside the data sets, then renamed.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spinal_repro.data.archives import gunzip
from spinal_repro.data.catalog import Entry, File
from spinal_repro.data.verify import (
    IMAGES,
    PART_NAMES,
    class_names,
    file_problem,
    image_files,
    problems,
)
from spinal_repro.errors import UserError
from spinal_repro.io import exclusive_lock

HIDDEN = ".spinal-data"


class Stage:
    """The hidden folder of one data set.

    Attributes:
        downloads: Files on their way; kept when something fails, to be continued.
        unpacked: Archives unpacked.
        ready: A root in which the data set lies as it will lie.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.folder = root / HIDDEN / key
        self.downloads = self.folder / "downloads"
        self.unpacked = self.folder / "unpacked"
        self.ready = self.folder / "ready"

    def owns(self, path: Path) -> bool:
        """Whether a file may be moved or deleted."""
        return path.is_relative_to(self.folder)

    def clear(self) -> None:
        """Remove all but downloads."""
        for folder in (self.unpacked, self.ready):
            shutil.rmtree(folder, ignore_errors=True)

    def discard_downloads(self) -> None:
        """Remove what was downloaded."""
        for path in self.downloads.iterdir():
            path.unlink()


@contextmanager
def staged(root: Path, key: str) -> Iterator[Stage]:
    """The stage of a data set, for one process at a time.

    What was unpacked is removed in the end; downloads stay unless they are discarded.
    """
    stage = Stage(root, key)
    (root / HIDDEN).mkdir(parents=True, exist_ok=True)
    with exclusive_lock(root / HIDDEN / f"{key}.lock", f"writing {key} to {root}"):
        stage.downloads.mkdir(parents=True, exist_ok=True)
        try:
            stage.clear()  # of a process that was killed
            yield stage
        finally:
            stage.clear()
            if not any(stage.downloads.iterdir()):
                shutil.rmtree(stage.folder)


def collect(entry: Entry, sources: Sequence[Path], stage: Stage, root: Path) -> list[str]:
    """Lay a data set out under ``stage.ready`` from files and folders, wherever they lie in them.

    Args:
        entry: The data set.
        sources: Files and folders to look through.
        stage: Files in it are moved, all others copied.
        root: Where the data set belongs; what already lies there well is not looked for.

    Returns:
        What is missing or wrong; empty where the data set is ready.
    """
    target = entry.path(stage.ready)
    target.mkdir(parents=True, exist_ok=True)
    if entry.is_folder:
        parts = find_parts(entry, sources)
        if not parts:
            looked = ", ".join(f"{name}/CLASS/" for name in entry.parts.values())
            return [f"no {looked} at any depth, with images ({', '.join(IMAGES)}) in them"]
        for part, folder in parts.items():
            for name in class_names(folder):
                (target / entry.parts[part] / name).mkdir(parents=True)
                for image in image_files(folder / name):
                    _take(image, target / entry.parts[part] / name / image.name, stage)
        return problems(entry, stage.ready, deep=False)
    found = list(_files(sources))
    wrong = []
    for file in entry.contents:
        if file_problem(entry.path(root), file, deep=True) is None:
            continue
        reasons = [_place(path, file, target, stage) for path in _called(file.name, found)]
        if None not in reasons:
            wrong.append("; ".join(r for r in reasons if r) or f"missing {file.name}")
    return wrong


def install(entry: Entry, stage: Stage, root: Path) -> None:
    """Give what `collect` made ready its final name.

    Raises:
        UserError: where another folder is in the way.
    """
    source, target = entry.path(stage.ready), entry.path(root)
    if entry.is_folder:
        refuse_what_is_in_the_way(entry, root)
        if target.exists():
            target.rmdir()
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        source.rename(target)
        return
    for file in entry.contents:
        if (source / file.name).is_file():
            (source / file.name).replace(target / file.name)


def refuse_what_is_in_the_way(entry: Entry, root: Path) -> None:
    """Other files are never replaced by a tree of images.

    Raises:
        UserError: where there is a folder that is not empty.
    """
    target = entry.path(root)
    if entry.is_folder and target.is_dir() and any(target.iterdir()):
        wrong = "; ".join(problems(entry, root, deep=False))
        raise UserError(
            f"{target} is there already but is not {entry.title} as the catalog knows it "
            f"({wrong}); rename or delete it first"
        )


def _files(sources: Iterable[Path]) -> Iterator[Path]:
    for source in sources:
        if source.is_dir():
            yield from (path for path in sorted(source.rglob("*")) if path.is_file())
        else:
            yield source


def _called(name: str, paths: Iterable[Path]) -> list[Path]:
    """The files of a name, plain ones first: gzipped, or as Kaggle spells idx files, they count."""

    def plain(path: Path) -> str:
        return path.name.removesuffix(".gz").replace(".idx", "-idx")

    wanted = Path(name).name
    return sorted((p for p in paths if plain(p) == wanted), key=lambda p: p.suffix == ".gz")


def _place(path: Path, file: File, target: Path, stage: Stage) -> str | None:
    """Put one file into its place, if it is the right one; else say what is wrong with it."""
    place = target / file.name
    if place.exists():
        return None
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz" and not file.name.endswith(".gz"):
        try:
            gunzip(path, place)
        except UserError as error:
            return str(error)
    else:
        _take(path, place, stage)
    wrong = file_problem(target, file, deep=True)
    if wrong is not None:
        place.unlink()
        return f"{wrong} ({path})"
    return None


def _take(path: Path, place: Path, stage: Stage) -> None:
    if stage.owns(path):
        path.rename(place)
    else:
        shutil.copyfile(path, place)


def _part_of(name: str) -> str | None:
    """Which part a folder name means."""
    return next((part for part, names in PART_NAMES.items() if name.lower() in names), None)


def find_parts(entry: Entry, sources: Sequence[Path]) -> dict[str, Path]:
    """Part to the folder that has one folder of images for each class, however deep it lies.

    Raises:
        UserError: where two folders claim to be the same part.
    """
    meanings = {_part_of(name): part for part, name in entry.parts.items()}
    hits: dict[str, list[Path]] = {part: [] for part in entry.parts}
    for source in sources:
        for parent in _class_parents(source):
            above = [parent, *parent.parents]
            above = above[: above.index(source) + 1]
            meaning = next((m for folder in above if (m := _part_of(folder.name))), None)
            if meaning in meanings:
                hits[meanings[meaning]].append(parent)
    found = {}
    for part, folders in hits.items():
        right = [f for f in folders if entry.num_classes in (None, len(class_names(f)))]
        folders = right or folders
        if any(class_names(folder) != class_names(folders[0]) for folder in folders):
            names = ", ".join(map(str, folders))
            raise UserError(f"{entry.title}: which is the part {part}? It may be any of {names}")
        if folders:
            found[part] = min(folders, key=lambda folder: len(folder.parts))
    return found


def _class_parents(source: Path) -> list[Path]:
    """Folders whose own folders hold images."""
    holders = {path.parent for path in image_files(source)} - {source}
    return sorted({folder.parent for folder in holders})
