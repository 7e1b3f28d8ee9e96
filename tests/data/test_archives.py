"""Archives are unpacked whole and inside their folder, or refused."""

import contextlib
import gzip
import os
from pathlib import Path

import pytest
from helpers import mirror as m

from spinal_repro.data.archives import ArchiveError, gunzip, is_archive, unpack

FILES = {"a/one.txt": b"1" * 1000, "a/b/two.txt": b"2" * 10, "./three.txt": b"3"}
KINDS = {
    "x.zip": m.zip_of,
    "x.tar.gz": m.tar_of,
    "x.tgz": m.tar_of,
    "x.tar": None,
    "x.tar.xz": None,
}


def packed(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    mode = {"x.tar": "w", "x.tar.xz": "w:xz"}.get(name, "w:gz")
    path = folder / name
    path.write_bytes(m.zip_of(files) if name == "x.zip" else m.tar_of(files, mode))
    return path


def listed(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", KINDS)
def test_everything_is_unpacked(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path, name, FILES)
    assert is_archive(path)
    unpack(path, tmp_path / "out")
    assert listed(tmp_path / "out") == {n.removeprefix("./"): c for n, c in FILES.items()}


def test_only_some_members(tmp_path: Path) -> None:
    unpack(packed(tmp_path, "x.zip", FILES), tmp_path / "out", members=["*two*"])
    assert list(listed(tmp_path / "out")) == ["a/b/two.txt"]


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
@pytest.mark.parametrize("evil", ["../x.txt", "a/../../x.txt"])
def test_nothing_is_written_outside(tmp_path: Path, name: str, evil: str) -> None:
    with pytest.raises(ArchiveError, match="would write outside"):
        unpack(packed(tmp_path, name, {**FILES, evil: b"evil"}), tmp_path / "out")
    assert not (tmp_path / "x.txt").exists()


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
def test_absolute_names_are_taken_as_relative_or_refused(tmp_path: Path, name: str) -> None:
    evil = str(tmp_path / "x.txt")
    with contextlib.suppress(ArchiveError):
        unpack(packed(tmp_path, name, {**FILES, evil: b"evil"}), tmp_path / "out")
    assert not (tmp_path / "x.txt").exists()


def test_links_to_the_outside_are_refused(tmp_path: Path) -> None:
    files = {**FILES, "a/link -> ../../x": b""}
    with pytest.raises(ArchiveError, match="would write outside"):
        unpack(packed(tmp_path, "x.tar", files), tmp_path / "out")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_half_an_archive(tmp_path: Path, name: str, share: float) -> None:
    path = packed(tmp_path, name, {"a": os.urandom(50_000), "b": os.urandom(50_000)})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(path, tmp_path / "out")


def test_gunzip(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"0" * 1000))
    gunzip(tmp_path / "a.gz", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"0" * 1000
    for content in (gzip.compress(b"0" * 1000)[:-8], b"<html>"):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(ArchiveError, match=r"a\.gz is damaged"):
            gunzip(tmp_path / "a.gz", tmp_path / "b")
        assert not (tmp_path / "b").exists()


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("<html>log in first</html>")
    with pytest.raises(ArchiveError, match=r"x\.zip is damaged"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
