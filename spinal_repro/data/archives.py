"""Unpacking zip and tar archives and gzipped files."""

import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spinal_repro.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
BROKEN = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError)


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
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArchiveError(f"{path} is damaged or not a safe archive") from error
