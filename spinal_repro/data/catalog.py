"""The catalog of data sets: origin, licence, files and checksums.

Read from the ``about`` mappings of ``configs/dataset/*.yaml``.
"""

import functools
import hashlib
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
class Entry:
    """One data set of the catalog; classes and sizes that are not fixed are None."""

    name: str
    title: str
    source: str
    options: Mapping[str, Any]
    num_classes: int | None
    sizes: Mapping[str, int | None]  # images by part
    about: About
    test_classes: int | None = None  # in the test part, if fewer: without the last ones

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
    def contents(self) -> tuple[File, ...]:
        """Files expected in `path`: those listed, else those of the download without ``.gz``."""
        if self.is_folder or self.about.contents:
            return tuple(self.about.contents)
        files = self.about.files
        return tuple(File(f.name[:-3]) if f.name.endswith(".gz") else f for f in files)

    @property
    def download_size(self) -> str:
        """Size of the download in MB; empty if unknown."""
        sizes = [file.bytes or 0 for file in self.about.files]
        return f"{sum(sizes) / 1e6:,.0f} MB" if all(sizes) and sizes else ""

    def resized(self, config: DatasetConfig) -> "Entry":
        """Copy with the classes, sizes and folders of a configuration."""
        sizes = {"train": config.train_size, "val": config.val_size, "test": config.test_size}
        options = dict(config.options)
        return replace(self, num_classes=config.num_classes, sizes=sizes, options=options)


def checksum(path: Path, kind: str) -> str:
    """Compute the ``md5`` or ``sha256`` of a file in hex digits."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


@functools.cache
def load_catalog(extra_dir: Path | None = None) -> dict[str, Entry]:
    """Read every data set with an ``about``; those in the user's ``extra_dir`` take precedence."""
    paths = [path for folder in _folders(extra_dir) for path in folder.glob("*.yaml")]
    entries = {path.stem: entry for path in paths if (entry := _read(path)) is not None}
    return dict(sorted(entries.items()))


def find_entry(name: str, extra_dir: Path | None = None) -> Entry:
    """Read one data set of the catalog."""
    for folder in reversed(_folders(extra_dir)):
        entry = _read(folder / f"{name}.yaml")
        if entry is not None:
            return entry
    raise unknown("data set", name, load_catalog(extra_dir))


def entry_for(config: DatasetConfig) -> Entry | None:
    """Find the entry of a configured data set: by its name, or by the files it reads."""
    found = _read(config_dir() / "dataset" / f"{config.name}.yaml")
    if found is None:
        reads = (config.source, dict(config.options))
        same = (e for e in load_catalog().values() if (e.source, dict(e.options)) == reads)
        found = next(same, None)
    return None if found is None or found.source != config.source else found.resized(config)


def _folders(extra_dir: Path | None) -> list[Path]:
    if extra_dir is not None and not extra_dir.is_dir():
        raise UserError(f"the configuration folder {extra_dir} does not exist; check --config-dir")
    return [folder / "dataset" for folder in (config_dir(), extra_dir) if folder is not None]


def _read(path: Path) -> Entry | None:
    node = read_yaml(path) if path.is_file() else None
    return parse_entry(node, path.stem) if isinstance(node, dict) and "about" in node else None


def parse_entry(node: Mapping[str, Any], name: str) -> Entry:
    """Check one YAML file, given as plain containers; ``name`` is that of the file."""
    where = f"dataset/{name}.yaml: about"
    plain = merge_onto(About, node["about"] or {}, where)
    for key in ("files", "contents"):
        plain[key] = [File(**file) for file in plain[key]]
    about = About(**plain)
    one_of(f"{where}: state", about.state, STATES)
    if about.state != "auto" and not about.instructions:
        raise UserError(f"{where}: state {about.state} needs instructions")
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
        test_classes=node.get("test_outputs"),
    )
