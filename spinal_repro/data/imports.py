"""Bringing files that people already have into their place."""

from collections.abc import Sequence
from pathlib import Path

from spinal_repro.config.schema import DatasetConfig
from spinal_repro.data.archives import is_archive, unpack
from spinal_repro.data.catalog import Entry, entry_for, load_catalog
from spinal_repro.data.fetch import disk_error
from spinal_repro.data.stage import Stage, collect, install, refuse_what_is_in_the_way, staged
from spinal_repro.data.verify import problems, sum_of
from spinal_repro.errors import UserError


def import_data(
    entry: Entry, root: Path, paths: Sequence[Path], siblings: Sequence[Entry] = ()
) -> bool:
    """Copy a data set from a folder, an archive or single files into its place.

    Files are found by their names at any depth, plain or gzipped, image folders by the names of
    their parts. Archives are unpacked, also those that lie in a folder that is given.

    Args:
        entry: The data set.
        root: The folder data sets lie in.
        paths: What people have. It is left as it is.
        siblings: Data sets that come in the same archive; they are brought along if they are there.

    Returns:
        Whether anything had to be imported.

    Raises:
        UserError: where the files are not those of the data set.
    """
    for path in paths:
        if not path.exists():
            raise UserError(f"there is no {path}")
    if not entry.is_folder and not entry.contents:
        raise UserError(f"{entry.title} is part of a package; there is nothing to import")
    if not problems(entry, root, deep=not entry.is_folder):
        return False
    refuse_what_is_in_the_way(entry, root)
    try:
        with staged(root, entry.key) as stage:
            sources = _sources(paths, entry, stage)
            wrong = collect(entry, sources, stage, root)
            wrong = wrong or _mistaken(entry, stage)
            if wrong:
                raise UserError(_what_is_wrong(entry, paths, wrong))
            install(entry, stage, root)
            for other in siblings:
                if not collect(other, sources, stage, root):
                    install(other, stage, root)
    except OSError as error:
        raise disk_error(error, entry, root) from error
    return True


def import_lying(config: DatasetConfig, root: Path) -> None:
    """Unpack a data set whose archive lies under the root, as torchvision leaves it there.

    Raises:
        UserError: where the archive is damaged or another one.
    """
    entry = entry_for(config)
    names = [file.name for file in entry.about.files] if entry is not None else []
    lying = [root / name for name in names if is_archive(root / name) and (root / name).is_file()]
    if entry is not None and lying:
        import_data(entry, root, lying)


def _sources(paths: Sequence[Path], entry: Entry, stage: Stage) -> list[Path]:
    """The paths, with archives and those that lie in a folder unpacked."""
    sources: list[Path] = []
    for path in (path.resolve() for path in paths):
        inside = [path, *sorted(path.iterdir())] if path.is_dir() else [path]
        archives = [place for place in inside if place.is_file() and is_archive(place)]
        sources += [path] if path not in archives else []
        for archive in archives:
            own = any(archive.name == file.name for file in entry.about.files)
            sources.append(stage.unpacked / str(len(sources)))
            unpack(archive, sources[-1], members=entry.about.members if own else ())
    return sources


def _mistaken(entry: Entry, stage: Stage) -> list[str]:
    """Files of the same names that belong to another data set: the MNIST family shares them."""
    known = {
        content.sha256: other.title
        for other in load_catalog().values()
        for content in other.contents
        if content.sha256 and other.key != entry.key
    }
    wrong = []
    for file in entry.contents:
        path = entry.path(stage.ready) / file.name
        if file.md5 is None and file.sha256 is None and path.is_file():
            title = known.get(sum_of(path, "sha256"))
            if title is not None:
                wrong.append(f"{file.name} is that of {title}")
    return wrong


def _what_is_wrong(entry: Entry, paths: Sequence[Path], wrong: list[str]) -> str:
    where = ", ".join(map(str, paths))
    more = ""
    if entry.is_folder and any("expected" in text for text in wrong):
        sizes = [f"dataset.{part}_size=N" for part in entry.parts]
        more = (
            f". For another release, say what it has, here and in training: "
            f"dataset.num_classes=N {' '.join(sizes)}"
        )
    return f"{where} is not {entry.title} as the catalog knows it: {'; '.join(wrong)}{more}"
