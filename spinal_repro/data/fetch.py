"""Fetching data sets from their mirrors."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.archives import ArchiveError, is_archive, unpack
from spinal_repro.data.catalog import Entry, File, entry_for, load_catalog
from spinal_repro.data.download import download, right
from spinal_repro.data.stage import Stage, collect, install, refuse_what_is_in_the_way, staged
from spinal_repro.data.verify import file_problem, problems
from spinal_repro.errors import UserError


def offline() -> bool:
    """Whether the environment variable SPINAL_OFFLINE forbids the network."""
    return os.environ.get("SPINAL_OFFLINE", "").lower() not in ("", "0", "false", "no")


def ensure(config: DatasetConfig, root: Path) -> None:
    """Fetch what a configuration needs and is missing, if the catalog knows from where.

    Raises:
        UserError: as `fetch`.
    """
    entry = entry_for(config)
    if entry is not None:
        fetch(entry, root, deep=False, siblings=siblings_of(entry))


def siblings_of(entry: Entry) -> list[Entry]:
    """Data sets that come in the same archive."""
    if not any(is_archive(Path(file.name)) for file in entry.about.files):
        return []
    return [
        other
        for other in load_catalog().values()
        if other.name != entry.name
        and (other.key, other.about.files) == (entry.key, entry.about.files)
    ]


def fetch(entry: Entry, root: Path, *, deep: bool = True, siblings: Sequence[Entry] = ()) -> bool:
    """Fetch a data set, or what is missing or damaged of it.

    Args:
        entry: The data set.
        root: The folder data sets lie in.
        deep: Compare the checksums of what is there already.
        siblings: Data sets that come in the same archive; they are brought along.

    Returns:
        Whether anything had to be fetched.

    Raises:
        UserError: where it cannot be fetched; nothing half-written stands under its name.
    """
    wrong = problems(entry, root, deep=deep and not entry.is_folder)
    if not wrong:
        return False
    if entry.about.state != "auto":
        raise UserError(f"{entry.title} cannot be fetched ({entry.about.state}). {how_to(entry)}")
    refuse_what_is_in_the_way(entry, root)
    if offline():
        raise UserError(
            f"SPINAL_OFFLINE is set, and {entry.title} is not in {entry.path(root).resolve()}: "
            f"{'; '.join(wrong)}. Bring the files from another machine with: spinal data import "
            f"{entry.name} PATH"
        )
    try:
        with staged(root, entry.key) as stage:
            if not problems(entry, root, deep=deep and not entry.is_folder):
                return True  # another process has just fetched it
            sources = [_obtain(file, entry, root, stage) for file in _needed(entry, root)]
            wrong = collect(entry, sources, stage, root)
            if wrong:
                stage.discard_downloads()
                raise UserError(
                    f"what was fetched is not {entry.title}: {'; '.join(wrong)}; it was deleted"
                )
            install(entry, stage, root)
            for other in siblings:
                if not collect(other, sources, stage, root):
                    install(other, stage, root)
            stage.discard_downloads()
    except OSError as error:
        raise disk_error(error, entry, root) from error
    return True


def how_to(entry: Entry) -> str:
    """What people have to do to get a data set, in sentences."""
    return " ".join(f"{number}. {text}" for number, text in enumerate(entry.about.instructions, 1))


def disk_error(error: OSError, entry: Entry, root: Path) -> UserError:
    """What to say where the disk refuses."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        size = entry.download_bytes
        need = f" (the download alone has {size / 1e6:,.0f} MB)" if size else ""
        return UserError(
            f"the disk of {root.resolve()} is full{need}. {entry.title} was not put there; what "
            f"was loaded is kept. Make room and issue the command again, or choose another "
            f"folder with SPINAL_DATA"
        )
    return UserError(f"{entry.title} cannot be written to {root.resolve()}: {error}")


def _needed(entry: Entry, root: Path) -> list[File]:
    """Which files to fetch: all, unless each stands for one file on disk."""
    contents = entry.contents
    if len(contents) != len(entry.about.files) or any(
        is_archive(Path(file.name)) for file in entry.about.files
    ):
        return list(entry.about.files)
    folder = entry.path(root)
    return [
        file
        for file, content in zip(entry.about.files, contents, strict=True)
        if file_problem(folder, content, deep=True) is not None
    ]


def _obtain(file: File, entry: Entry, root: Path, stage: Stage) -> Path:
    """A file from the mirrors, unpacked if it is an archive."""
    lying = [folder / file.name for folder in (root, entry.path(root), entry.path(root).parent)]
    known = file.md5 or file.sha256
    path = next((p for p in lying if known and p.is_file() and right(p, file) is None), None)
    if path is None:
        path = download(file, entry, stage.downloads)
    if not is_archive(path):
        return path
    target = stage.unpacked / file.name
    try:
        unpack(path, target, members=entry.about.members)
    except ArchiveError:
        if stage.owns(path):
            path.unlink()
        raise
    return target
