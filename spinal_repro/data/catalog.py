"""The catalog: what each data set is, where it comes from and which files it is made of.

It is read from the ``about`` mappings of ``configs/dataset/*.yaml``; what training needs stands
beside them in the same files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spinal_repro.config.compose import config_dir
from spinal_repro.config.schema import DatasetConfig
from spinal_repro.errors import UserError, one_of, unknown
from spinal_repro.io import read_yaml
from spinal_repro.registry import merge_onto

STATES = ("auto", "manual", "gone")
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class File:
    """One file to fetch, or one file that must lie on disk.

    Attributes:
        name: On the mirror, or below the data set's folder.
        md5: As published; null where nobody published it.
        sha256: As md5.
        bytes: Its size.
        holds: SHA-256 of what a gzipped file contains: mirrors may have compressed it again.
    """

    name: str = ""
    md5: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    holds: str | None = None


@dataclass(frozen=True)
class About:
    """The schema of ``about``.

    Attributes:
        state: ``auto`` (can be fetched), ``manual`` (people must fetch it, see ``instructions``)
            or ``gone`` (its publisher no longer has it).
        folder: Where its files lie below the root; unused by sources of image folders.
        mirrors: Prefixes of file names, tried in order.
        files: What to fetch.
        members: Patterns of what to unpack of an archive; empty for all.
        contents: Files that must lie in ``folder``; derived from ``files`` where those are single.
        mean, std: Usual normalisation, for pixels in [0, 1]; null for what the weights expect.
        classes: Names for people in the order of the labels, where the data do not say them.
    """

    state: str = "manual"
    folder: str | None = None
    mirrors: list[str] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    contents: list[File] = field(default_factory=list)
    mean: list[float] | None = None
    std: list[float] | None = None
    licence: str | None = None
    citation: str | None = None
    homepage: str | None = None
    classes: list[str] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """One data set of the catalog.

    Attributes:
        name: Of the YAML file.
        title: For people.
        source: What reads it.
        options: Of the source; for image folders, where the parts lie.
        num_classes: Null where any number will do.
        sizes: Images by part (``train``, ``val``, ``test``); null where any number will do.
        about: The rest.
    """

    name: str
    title: str
    source: str
    options: Mapping[str, Any]
    num_classes: int | None
    sizes: Mapping[str, int | None]
    about: About

    @property
    def is_folder(self) -> bool:
        """Whether it is a tree of image files, one folder a class."""
        return self.source == "folder"

    @property
    def key(self) -> str:
        """Its folder on a mirror of one's own; EMNIST's splits share one."""
        return self.name if self.is_folder else self.source

    def path(self, root: Path) -> Path:
        """The folder of its files."""
        below = self.options.get("folder") if self.is_folder else self.about.folder
        return root / str(below or "")

    @property
    def parts(self) -> dict[str, str]:
        """Part to the name of its folder, for trees of image files."""
        return {part: str(self.options[part]) for part in PARTS if self.options.get(part)}

    @property
    def contents(self) -> tuple[File, ...]:
        """Files that must lie in `path`; empty for trees of image files."""
        if self.is_folder or self.about.contents:
            return tuple(self.about.contents)
        return tuple(
            File(file.name.removesuffix(".gz"), sha256=file.holds)
            if file.name.endswith(".gz")
            else file
            for file in self.about.files
        )

    @property
    def download_bytes(self) -> int | None:
        """Size of all that is fetched, where it is known."""
        sizes = [file.bytes for file in self.about.files]
        return sum(s for s in sizes if s) if sizes and None not in sizes else None

    def resized(self, config: DatasetConfig) -> "Entry":
        """The same with the classes, sizes and folders of a configuration."""
        sizes = {"train": config.train_size, "val": config.val_size, "test": config.test_size}
        return replace(
            self, num_classes=config.num_classes, sizes=sizes, options=dict(config.options)
        )


def load_catalog(extra_dir: Path | None = None) -> dict[str, Entry]:
    """Every data set with an ``about``, by name.

    Args:
        extra_dir: A folder with configuration groups of one's own, which come first.

    Raises:
        UserError: for a record that is not valid, and where the folder is not there.
    """
    entries = {}
    for folder in _folders(extra_dir):
        for path in folder.glob("*.yaml"):
            entry = _read(path)
            if entry is not None:
                entries[path.stem] = entry
    return dict(sorted(entries.items()))


def find_entry(name: str, extra_dir: Path | None = None) -> Entry:
    """One data set of the catalog.

    Raises:
        UserError: where there is none of this name.
    """
    for folder in reversed(_folders(extra_dir)):
        path = folder / f"{name}.yaml"
        entry = _read(path) if path.is_file() else None
        if entry is not None:
            return entry
    raise unknown("data set in the catalog", name, load_catalog(extra_dir))


def _folders(extra_dir: Path | None) -> list[Path]:
    if extra_dir is not None and not extra_dir.is_dir():
        raise UserError(f"there is no folder {extra_dir} of configuration of your own")
    return [folder / "dataset" for folder in (config_dir(), extra_dir) if folder is not None]


def _read(path: Path) -> Entry | None:
    """The record in one file, if it has one."""
    node = read_yaml(path)
    return parse_entry(node, path.stem) if isinstance(node, dict) and "about" in node else None


def entry_for(config: DatasetConfig) -> Entry | None:
    """The record of a configured data set: of its name, or the one that reads the same files."""
    path = config_dir() / "dataset" / f"{config.name}.yaml"
    found = _read(path) if path.is_file() else None
    if found is None:
        reads = (config.source, dict(config.options))
        same = (e for e in load_catalog().values() if (e.source, dict(e.options)) == reads)
        found = next(same, None)
    return None if found is None or found.source != config.source else found.resized(config)


def parse_entry(node: Mapping[str, Any], name: str) -> Entry:
    """Check one record.

    Args:
        node: The YAML file as plain containers.
        name: What the file is called.

    Raises:
        UserError: for unknown keys and wrong types, and for a record that lacks how to get it.
    """
    where = f"dataset/{name}.yaml: about"
    plain = merge_onto(About, node["about"] or {}, where)
    for key in ("files", "contents"):
        plain[key] = [File(**file) for file in plain[key]]
    about = About(**plain)
    one_of(f"{where}: state", about.state, STATES)
    if about.state != "auto" and not about.instructions:
        raise UserError(f"{where}: a data set that is {about.state} needs instructions")
    if about.files and not about.mirrors:
        raise UserError(f"{where}: files need mirrors")
    return Entry(
        name=name,
        title=str(node.get("title", name)),
        source=str(node.get("source")),
        options=node.get("options") or {},
        num_classes=node.get("num_classes"),
        sizes={part: node.get(f"{part}_size") for part in PARTS},
        about=about,
    )
