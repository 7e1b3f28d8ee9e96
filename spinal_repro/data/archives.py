"""Unpacking archives from strangers.

Nothing is written outside the target, links and devices are refused, and what unpacks to more than
it says, or to absurdly much, is stopped while it is unpacked.
"""

import fnmatch
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from spinal_repro.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
MAX_RATIO = 50  # unpacked to packed; the images here come to 5, and labels alone to 10
SLACK = 64 * 2**20  # small archives may unpack to this much whatever their ratio
MAX_FILES = 1_000_000  # CINIC-10 has 270,000
CHUNK = 2**20
BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error)

Advance = Callable[[int], object]


class ArchiveError(UserError):
    """An archive that is damaged or must not be unpacked."""


def is_archive(path: Path) -> bool:
    """Whether a name is that of an archive of many files."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(
    archive: Path, target: Path, *, members: Sequence[str] = (), advance: Advance | None = None
) -> None:
    """Unpack a zip or tar archive.

    Args:
        archive: The file.
        target: An empty folder, which is created.
        members: Patterns (``*`` and ``?``) of what to unpack; empty for everything.
        advance: Called with the number of bytes written, again and again.

    Raises:
        ArchiveError: where it is damaged, leads outside, or is larger than it may be.
        OSError: where the disk refuses.
    """
    target.mkdir(parents=True, exist_ok=True)
    budget = MAX_RATIO * archive.stat().st_size + SLACK
    count = 0
    try:
        for name, size, source in _members(archive):
            count += 1
            if count > MAX_FILES:
                raise ArchiveError(f"{archive} holds more than {MAX_FILES:,} files")
            if members and not any(fnmatch.fnmatch(name, pattern) for pattern in members):
                continue
            path = target / safe_name(name, archive)
            if size > budget:
                raise ArchiveError(
                    f"{archive} unpacks to more than {MAX_RATIO} times its size; it is not unpacked"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            with source() as packed, path.open("xb") as out:
                budget -= copy(packed, out, size, f"{name} in {archive}", advance)
    except FileExistsError as error:
        raise ArchiveError(f"{archive} holds {error.filename} twice") from error
    except BROKEN as error:
        raise ArchiveError(f"{archive} is damaged ({error})") from error
    except (ArchiveError, OSError):
        raise
    except Exception as error:  # bytes that are no archive can end its readers in any way
        raise ArchiveError(f"{archive} is damaged ({type(error).__name__}: {error})") from error


def _members(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """Name, declared size and opener of each file, in order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                safe_name(info.filename, archive)
                if info.is_dir():
                    continue
                if kind not in (0, stat.S_IFREG):
                    raise ArchiveError(f"{archive} holds a link or device: {info.filename}")
                if info.flag_bits & 1:
                    raise ArchiveError(f"{archive} is encrypted")
                yield info.filename, info.file_size, lambda info=info: packed.open(info)  # type: ignore[misc]
        return
    with tarfile.open(archive) as packed_tar:
        for member in packed_tar:
            safe_name(member.name, archive)
            if member.isdir():
                continue
            if not member.isreg():
                raise ArchiveError(f"{archive} holds a link or device: {member.name}")

            def source(member: tarfile.TarInfo = member) -> IO[bytes]:
                opened = packed_tar.extractfile(member)
                assert opened is not None  # it is a regular file
                return opened

            yield member.name, member.size, source


def safe_name(name: str, archive: Path) -> PurePosixPath:
    """The path of a member below the target.

    Raises:
        ArchiveError: where it would lead outside.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]:
        raise ArchiveError(f"{archive} would write outside its folder: {name!r}; do not use it")
    return path


def copy(
    source: Any, target: IO[bytes], limit: int, what: str, advance: Advance | None = None
) -> int:
    """Copy a stream and stop where it is longer than it may be.

    Returns:
        Bytes copied.

    Raises:
        ArchiveError: where it is longer than ``limit`` bytes.
    """
    done = 0
    while chunk := source.read(CHUNK):
        done += len(chunk)
        if done > limit:
            raise ArchiveError(f"{what} unpacks to more than the {limit:,} bytes it may hold")
        target.write(chunk)
        if advance is not None:
            advance(len(chunk))
    return done


def gunzip(path: Path, target: Path, size: int | None = None) -> None:
    """Unpack one gzipped file.

    Args:
        path: The file.
        target: What to write; it is not there when this fails.
        size: The largest size it may have; otherwise a multiple of the packed one.

    Raises:
        ArchiveError: where it is damaged or too large.
        OSError: where the disk refuses.
    """
    limit = MAX_RATIO * path.stat().st_size + SLACK if size is None else size
    try:
        with gzip.open(path) as source, target.open("wb") as out:
            copy(source, out, limit, str(path))
    except (*BROKEN, EOFError) as error:
        target.unlink(missing_ok=True)
        raise ArchiveError(f"{path} is damaged ({error})") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise
