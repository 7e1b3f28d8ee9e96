"""Unpacking zip and tar archives and gzipped files."""

import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

from spinal_repro.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
BROKEN = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError)


class ArchiveError(UserError):
    """An archive that is damaged or unsafe."""


def is_archive(path: Path) -> bool:
    """Whether the file name is that of a zip or tar archive."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip or tar archive into a folder.

    Raises:
        ArchiveError: if it is damaged or a member would be written outside the folder.
        OSError: if the files cannot be written.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                for name in zipped.namelist():
                    if Path(name).is_absolute() or ".." in Path(name).parts:
                        raise _unsafe(archive, name)
                zipped.extractall(target)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="data")
    except tarfile.FilterError as error:
        raise _unsafe(archive, error.tarinfo.name) from error
    except (*BROKEN, OSError) as error:
        raise _damaged(archive, error) from error


def gunzip(path: Path, target: Path) -> None:
    """Unpack one gzipped file.

    Raises:
        ArchiveError: if it is damaged.
        OSError: if the file cannot be written.
    """
    try:
        with gzip.open(path) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, 2**20)
    except (*BROKEN, OSError) as error:
        target.unlink(missing_ok=True)
        raise _damaged(path, error) from error


def _unsafe(archive: Path, name: str) -> ArchiveError:
    return ArchiveError(
        f"{archive} is unsafe: its member {name!r} would be written outside the target folder"
    )


def _damaged(path: Path, error: Exception) -> Exception:
    """An `ArchiveError`; errors of the disk, which have a number, stay as they are."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return ArchiveError(f"{path} is damaged or not an archive")
