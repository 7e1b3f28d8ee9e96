"""Archives that are what they seem, and others."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import mirror as m
import pytest

from spinal_repro.data import archives
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
    done: list[int] = []
    unpack(path, tmp_path / "out", advance=done.append)
    assert listed(tmp_path / "out") == {n.removeprefix("./"): c for n, c in FILES.items()}
    assert sum(done) == sum(map(len, FILES.values()))


def test_only_some_members(tmp_path: Path) -> None:
    unpack(packed(tmp_path, "x.zip", FILES), tmp_path / "out", members=["*two*"])
    assert list(listed(tmp_path / "out")) == ["a/b/two.txt"]


@pytest.mark.parametrize(
    "link", ["a/link -> /etc/passwd", "a/link -> ../../x", "a/link -> one.txt"]
)
def test_links_are_refused(tmp_path: Path, link: str) -> None:
    with pytest.raises(ArchiveError, match="link or device"):
        unpack(packed(tmp_path, "x.tar", {**FILES, link: b""}), tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_hard_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("evil")
        info.type, info.linkname = kind, "a"
        archive.addfile(info)
    with pytest.raises(ArchiveError, match="link or device"):
        unpack(path, tmp_path / "out")


def test_links_in_zip_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match="link or device"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, name: str, monkeypatch) -> None:
    monkeypatch.setattr(archives, "SLACK", 10_000)
    path = packed(tmp_path, name, {f"{i}.txt": b"0" * 100_000 for i in range(20)})
    with pytest.raises(ArchiveError, match="more than 50 times its size"):
        unpack(path, tmp_path / "out")
    assert sum(map(len, listed(tmp_path / "out").values())) <= 50 * path.stat().st_size + 10_000


def test_a_zip_file_that_lies_about_its_sizes(tmp_path: Path) -> None:
    """The directory says 10 bytes where 100,000 are packed."""
    content = m.zip_of({"a": b"0" * 100_000})
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        place = content.index(signature) + offset
        content = content[:place] + struct.pack("<I", 10) + content[place + 4 :]
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"damaged|more than the 10 bytes"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert sum(map(len, listed(tmp_path / "out").values())) <= 10


def test_too_many_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILES", 2)
    with pytest.raises(ArchiveError, match="more than 2 files"):
        unpack(packed(tmp_path, "x.zip", FILES), tmp_path / "out")


def test_the_same_name_twice(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for _ in range(2):
            info = tarfile.TarInfo("a")
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    with pytest.raises(ArchiveError, match="twice"):
        unpack(tmp_path / "x.tar", tmp_path / "out")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_half_an_archive(tmp_path: Path, name: str, share: float) -> None:
    path = packed(tmp_path, name, {"a": os.urandom(50_000), "b": os.urandom(50_000)})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(path, tmp_path / "out")


def test_gunzip_stops_at_the_size_it_may_have(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"0" * 1000))
    gunzip(tmp_path / "a.gz", tmp_path / "a", 1000)
    assert (tmp_path / "a").read_bytes() == b"0" * 1000
    with pytest.raises(ArchiveError, match="more than the 999 bytes"):
        gunzip(tmp_path / "a.gz", tmp_path / "b", 999)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "name",
    ["C:/x.txt", "C:x.txt", "c:\\x.txt", "..\\x.txt", "a\\..\\..\\x.txt", "\\x.txt", "/x.txt"],
)
def test_names_that_lead_outside_on_any_system(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArchiveError, match="would write outside"):
        unpack(packed(tmp_path, "x.tar", {**FILES, name: b""}), tmp_path / "out")
    assert not (tmp_path / "x.txt").exists()
