"""The catalog of data sets: origin, licence, files and checksums.

Read from the ``about`` mappings of ``configs/dataset/*.yaml``.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from spinal_repro.config.compose import config_dir
from spinal_repro.config.schema import DatasetConfig
from spinal_repro.errors import UserError, check_known, one_of
from spinal_repro.io import checksum, read_yaml
from spinal_repro.registry import merge_onto

STATES = ("auto", "manual", "gone")
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class File:
    """One file of a data set; a checksum or size that was not published is None."""

    name: str = ""  # on the mirror, or below the data set's folder
    md5: str | None = None
    sha256: str | None = None
    bytes: int | None = None

    def checksum_mismatch(self, path: Path) -> str | None:
        """Compare a file with the checksum; None if it agrees or none was published."""
        for kind in ("sha256", "md5"):
            expected = getattr(self, kind)
            if expected is not None:
                found = checksum(path, kind)
                return None if found == expected else f"its {kind} is {found}, not {expected}"
        return None

    def problem(self, folder: Path) -> str | None:
        """Describe what is wrong with the file in a folder; None if it is as published."""
        path = folder / self.name
        if not path.is_file():
            return f"missing {self.name}"
        if self.bytes is not None and path.stat().st_size != self.bytes:
            return f"{self.name} has {path.stat().st_size:,} bytes, not {self.bytes:,}"
        if (wrong := self.checksum_mismatch(path)) is not None:
            return f"{self.name} is damaged: {wrong}"
        if "-idx" in self.name:
            from spinal_repro.data.torchvision_sets import read_idx

            try:
                read_idx(path)
            except UserError as error:
                return str(error).partition(";")[0]
        return None


@dataclass(frozen=True)
class About:
    """The schema of ``about``."""

    state: str = "manual"  # auto: can be fetched; manual: needs a login; gone: no longer published
    folder: str | None = None  # below the data folder; image folders have it in their options
    mirrors: list[str] = field(default_factory=list)  # prefixes of file names, tried in order
    files: list[File] = field(default_factory=list)  # to download
    contents: list[File] = field(default_factory=list)  # files in `folder`, if not `files`
    mean: list[float] | None = None  # usual normalisation of pixels in [0, 1]
    std: list[float] | None = None
    licence: str | None = None
    citation: str | None = None
    homepage: str | None = None
    classes: list[str] = field(default_factory=list)  # class names by label, if the files have none
    instructions: list[str] = field(default_factory=list)  # how to get a set that is not auto
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Entry(DatasetConfig):
    """One data set of the catalog; classes and sizes that are not fixed are None."""

    about: About = field(default_factory=About)

    @property
    def sizes(self) -> dict[str, int | None]:
        """Number of images by part."""
        return {part: getattr(self, f"{part}_size") for part in PARTS}

    @property
    def is_folder(self) -> bool:
        """Whether it consists of image files in one folder per class."""
        return self.source == "folder"

    @property
    def key(self) -> str:
        """Its folder on a private mirror (``SPINAL_MIRROR``); EMNIST's splits share one."""
        return self.name if self.is_folder else self.source

    def path(self, root: Path) -> Path:
        """The folder of its files."""
        below = self.options.get("folder") if self.is_folder else self.about.folder
        return root / str(below or "")

    @property
    def parts(self) -> dict[str, str]:
        """Folder name of each part, for image folders."""
        return {part: str(self.options[part]) for part in PARTS if self.options.get(part)}

    @property
    def contents(self) -> list[File]:
        """Files expected in `path`: those listed, else those of the download without ``.gz``."""
        if self.is_folder or self.about.contents:
            return self.about.contents
        return [File(f.name[:-3]) if f.name.endswith(".gz") else f for f in self.about.files]

    @property
    def download_size(self) -> str:
        """Size of the download in MB; empty if unknown."""
        sizes = [file.bytes or 0 for file in self.about.files]
        return f"{sum(sizes) / 1e6:,.0f} MB" if all(sizes) and sizes else ""

    def resized(self, config: DatasetConfig) -> "Entry":
        """Copy with the classes, sizes and folders of a configuration."""
        return replace(self, **{**vars(config), "name": self.name})


@functools.cache
def _nodes(extra_dir: Path | None) -> dict[str, dict[str, Any]]:
    """Read the YAML of each data set that has an ``about``; the user's take precedence."""
    if extra_dir is not None and not extra_dir.is_dir():
        raise UserError(f"the configuration folder {extra_dir} does not exist; check --config-dir")
    folders = [folder / "dataset" for folder in (config_dir(), extra_dir) if folder is not None]
    nodes = {path.stem: read_yaml(path) for folder in folders for path in folder.glob("*.yaml")}
    return {k: n for k, n in sorted(nodes.items()) if isinstance(n, dict) and "about" in n}


def load_catalog(extra_dir: Path | None = None) -> dict[str, Entry]:
    """List all data sets, those in the user's configuration folder ``extra_dir`` included."""
    return {name: find_entry(name, extra_dir) for name in _nodes(extra_dir)}


@functools.cache
def find_entry(name: str, extra_dir: Path | None = None) -> Entry:
    """Find one data set of the catalog."""
    nodes = _nodes(extra_dir)
    check_known("data set", name, nodes)
    return parse_entry(nodes[name], name)


def entry_for(config: DatasetConfig) -> Entry | None:
    """Find the entry of a configured data set: by its name, or by the files it reads."""
    nodes, reads = _nodes(None), (config.source, config.options)
    same = (name for name, n in nodes.items() if (n.get("source"), n.get("options") or {}) == reads)
    name = config.name if config.name in nodes else next(same, "")
    if not name or nodes[name].get("source") != config.source:
        return None
    return find_entry(name).resized(config)


def parse_entry(node: Mapping[str, Any], name: str) -> Entry:
    """Check one YAML file, given as plain containers; ``name`` is that of the file."""
    where = f"dataset/{name}.yaml: about"
    plain = merge_onto(About, node["about"] or {}, where)
    for key in ("files", "contents"):
        plain[key] = [File(**file) for file in plain[key]]
    about = About(**plain)
    one_of(f"{where}: state", about.state, STATES)
    known = {each.name for each in fields(DatasetConfig)}
    settings = {key: value for key, value in node.items() if key in known}
    return Entry(**{**settings, "name": name}, about=about)
