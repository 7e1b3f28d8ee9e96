"""Archives are unpacked inside their folder, or refused."""

import gzip
import os
from pathlib import Path

import pytest
from helpers import mirror as m

from spinal_repro.data.assemble import ArchiveError, gunzip, is_archive, unpack

FILES = {"a/one.txt": b"1" * 1000, "a/b/two.txt": b"2" * 10, "./three.txt": b"3"}
MODES = {"x.zip": "", "x.tar.gz": "w:gz", "x.tgz": "w:gz", "x.tar": "w", "x.tar.xz": "w:xz"}


def packed(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    path = folder / name
    path.write_bytes(m.tar_of(files, MODES[name]) if MODES[name] else m.zip_of(files))
    return path


@pytest.mark.parametrize("name", MODES)
def test_whole_or_refused(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path, name, {**FILES, "random": os.urandom(50_000)})
    assert is_archive(path)
    unpack(path, tmp_path / "out")
    for file, content in FILES.items():
        assert (tmp_path / "out" / file).read_bytes() == content
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(path, tmp_path / "other")


@pytest.mark.parametrize("unsafe", ["../x.txt", "a/../../x.txt", "a/link -> ../../x.txt"])
def test_nothing_is_written_outside(tmp_path: Path, unsafe: str) -> None:
    with pytest.raises(ArchiveError, match=r"x\.tar is .*not a safe archive"):
        unpack(packed(tmp_path, "x.tar", {**FILES, unsafe: b"evil"}), tmp_path / "out")
    unpack(packed(tmp_path, "x.zip", {**FILES, unsafe: b"evil"}), tmp_path / "other")
    assert {p.name for p in tmp_path.iterdir()} == {"x.tar", "out", "x.zip", "other"}
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


def test_gunzip(tmp_path: Path) -> None:
    packed, plain = tmp_path / "a.gz", b"0" * 1000
    packed.write_bytes(gzip.compress(plain))
    gunzip(packed, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == plain
    for content in (gzip.compress(plain)[:-8], b"<html>"):
        packed.write_bytes(content)
        with pytest.raises(ArchiveError, match=r"a\.gz is damaged"):
            gunzip(packed, tmp_path / "b")
