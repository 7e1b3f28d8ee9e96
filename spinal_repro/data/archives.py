"""Unpacking zip and tar archives and gzipped files."""

import fnmatch
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from spinal_repro.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
BROKEN = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError)


class ArchiveError(UserError):
    """An archive that is damaged or would write outside its folder."""


def is_archive(path: Path) -> bool:
    """Whether a name is that of an archive of many files."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, target: Path, *, members: Sequence[str] = ()) -> None:
    """Unpack a zip or tar archive.

    Args:
        archive: The file.
        target: The folder to unpack into; made where missing.
        members: Patterns (``*`` and ``?``) of what to unpack; empty for everything.

    Raises:
        ArchiveError: where it is damaged or has a member outside the folder.
        OSError: where the files cannot be written.
    """

    def wanted(name: str) -> bool:
        return not members or any(fnmatch.fnmatch(name, pattern) for pattern in members)

    target.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                for name in packed.namelist():
                    if not (target / name).resolve().is_relative_to(target.resolve()):
                        raise ArchiveError(f"{archive} would write outside its folder: {name!r}")
                packed.extractall(target, [name for name in packed.namelist() if wanted(name)])
        else:
            with tarfile.open(archive) as packed_tar:
                chosen = (member for member in packed_tar if wanted(member.name))
                packed_tar.extractall(target, chosen, filter="data")
    except tarfile.FilterError as error:
        raise ArchiveError(f"{archive} would write outside its folder: {error}") from error
    except (*BROKEN, OSError) as error:
        raise _damaged(archive, error) from error


def gunzip(path: Path, target: Path) -> None:
    """Unpack one gzipped file; ``target`` is only there when this succeeds.

    Raises:
        ArchiveError: where it is damaged.
        OSError: where the file cannot be written.
    """
    try:
        with gzip.open(path) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, 2**20)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, (*BROKEN, OSError)):
            raise _damaged(path, error) from error
        raise


def _damaged(path: Path, error: Exception) -> ArchiveError:
    """The error for damaged contents; an error of the disk, which has a number, is raised."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    return ArchiveError(f"{path} is damaged or no archive ({error})")
