"""Installing data sets: fetched or imported into a temporary folder, verified, then renamed."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.assemble import ArchiveError, assemble, is_archive, problems, unpack
from spinal_repro.data.catalog import Entry, entry_for, load_catalog
from spinal_repro.data.download import download
from spinal_repro.errors import UserError
from spinal_repro.io import exclusive_lock

HIDDEN = ".spinal-data"  # temporary folders, in the data folder


def require_files(
    config: DatasetConfig, root: Path, folder: Path, names: Sequence[str], download: bool
) -> None:
    """Refuse a data set with missing files, after `ensure`."""
    paths = [folder / name for name in names]
    if not all(path.is_file() for path in paths):
        ensure(config, root, download)
    if missing := [path.name for path in paths if not path.is_file()]:
        raise UserError(
            f"the files of dataset={config.name} are not in {folder.resolve()} (missing "
            f"{', '.join(missing)}). Fetch it with: spinal-train dataset={config.name} "
            f"data.download=true; or give its folder: data.root=FOLDER or the environment variable "
            f"SPINAL_DATA. More: spinal data info {config.name}"
        )


def ensure(config: DatasetConfig, root: Path, download: bool) -> None:
    """Download a data set of the catalog if allowed, else unpack local archives."""
    if (entry := entry_for(config)) is None:
        return
    if download:
        fetch(entry, root)
        return
    packed = [root / file.name for file in entry.about.files if is_archive(Path(file.name))]
    packed += [entry.path(root) / f"{file.name}.gz" for file in entry.contents]
    if packed := [path for path in packed if path.is_file()]:
        import_data(entry, root, packed)


def fetch(entry: Entry, root: Path) -> bool:
    """Download the missing and damaged files of a data set; False if there are none."""
    if not (wrong := problems(entry, root)):
        return False
    if entry.about.state != "auto":
        steps = (f"{number}. {text}" for number, text in enumerate(entry.about.instructions, 1))
        raise UserError(f"{entry.title} cannot be fetched ({entry.about.state}). {' '.join(steps)}")
    if os.environ.get("SPINAL_OFFLINE", "").lower() not in ("", "0", "false", "no"):
        why = f"{entry.path(root).resolve()} does not have {entry.title}: {'; '.join(wrong)}"
        fix = f"Copy the files from another machine and run: spinal data import {entry.name} PATH"
        raise UserError(f"SPINAL_OFFLINE is set, and {why}. {fix}")
    with _workspace(entry, root) as work:
        if not problems(entry, root):
            return True  # another process has just fetched it
        complete = [f.name for f in entry.contents if not f.problem(entry.path(root))]
        files = [f for f in entry.about.files if f.name.removesuffix(".gz") not in complete]
        sources = [download(file, entry, work / "downloads") for file in files]
        wrong = _install(entry, root, sources, work)
        shutil.rmtree(work / "downloads", ignore_errors=True)
    if wrong:
        fix = f"It was deleted; another source is needed: spinal data info {entry.name}"
        raise UserError(f"the download is not {entry.title}: {'; '.join(wrong)}. {fix}")
    return True


def import_data(entry: Entry, root: Path, paths: Sequence[Path]) -> bool:
    """Copy a data set from folders, archives or single files; False if it is complete.

    Files are found by name at any depth, plain or gzipped, image folders by the names of their
    parts. Archives are unpacked, also those directly in a given folder.
    """
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist")
    if not problems(entry, root):
        return False
    with _workspace(entry, root) as work:
        if not problems(entry, root):
            return True  # another process has just imported it
        wrong = _install(entry, root, [path.resolve() for path in paths], work)
    if wrong:
        given = ", ".join(map(str, paths))
        hint = f"see: spinal data info {entry.name}"
        if entry.is_folder and any("expected" in text for text in wrong):
            sizes = " ".join(f"dataset.{part}_size=N" for part in entry.parts)
            hint = (
                f"give the sizes of another release, as in training: dataset.num_classes=N {sizes}"
            )
        raise UserError(f"{given} cannot be imported as {entry.title}: {'; '.join(wrong)}; {hint}")
    return True


@contextmanager
def _workspace(entry: Entry, root: Path) -> Iterator[Path]:
    """Lock and yield the temporary folder of a data set; a failure keeps only the downloads."""
    target, work = entry.path(root), root / HIDDEN / entry.key
    if entry.is_folder and target.is_dir() and any(target.iterdir()):
        why = "; ".join(problems(entry, root))
        raise UserError(
            f"{target} exists but is not {entry.title} ({why}); rename or delete it first"
        )
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        lock = root / HIDDEN / f"{entry.key}.lock"
        with exclusive_lock(lock, f"writing {entry.key} to {root}"):
            try:
                _clear(work)  # left by a killed process
                yield work
            finally:
                _clear(work)
    except OSError as error:
        raise UserError(
            f"{entry.title} cannot be written to {root.resolve()}: {error.strerror or error}. Free "
            f"some space (the download has {entry.download_size or 'an unknown size'}) or choose "
            f"another folder with --root, data.root or SPINAL_DATA; then run the command again"
        ) from error


def _clear(work: Path) -> None:
    for name in ("unpacked", "ready"):
        shutil.rmtree(work / name, ignore_errors=True)
    if not any((work / "downloads").glob("*")):
        shutil.rmtree(work, ignore_errors=True)


def _install(entry: Entry, root: Path, paths: Sequence[Path], work: Path) -> list[str]:
    """Install a data set and others of the same archive; list the problems.

    Archives among the paths, and directly in folders, are unpacked.
    """
    files = [p for path in paths for p in (sorted(path.iterdir()) if path.is_dir() else [path])]
    archives = [path for path in files if is_archive(path) and path.is_file()]
    sources = [*paths, work / "unpacked"]
    try:
        for number, archive in enumerate(archives):
            unpack(archive, work / "unpacked" / str(number))
        wrong = assemble(entry, sources, work, root)
        for other in load_catalog().values():
            same = (other.key, other.about.files) == (entry.key, entry.about.files)
            if same and other.name != entry.name and not wrong:
                assemble(other, sources, work, root)  # into the same folder
    except ArchiveError as error:
        return [str(error)]
    if wrong:
        return wrong
    ready, target = entry.path(work / "ready"), entry.path(root)
    if entry.is_folder or not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        ready.rename(target)  # in place of an empty folder
    else:
        for file in ready.iterdir():
            file.replace(target / file.name)
    return []
