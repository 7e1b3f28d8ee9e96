"""Fetching from a mirror that behaves, and from mirrors that do not."""

import errno
import gzip
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import mirror as m
from helpers.idx_files import idx_bytes

from spinal_repro.data import download as download_module
from spinal_repro.data.fetch import fetch
from spinal_repro.data.stage import HIDDEN
from spinal_repro.errors import UserError

NAMES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip


@pytest.fixture
def server():
    with m.serving() as mirror:
        yield mirror


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(download_module, "PAUSE", 0.01)
    for name in ("SPINAL_OFFLINE", "SPINAL_MIRROR"):
        monkeypatch.delenv(name, raising=False)


def contents() -> dict[str, bytes]:
    random = np.random.default_rng(0)
    made = {}
    for part, count in (("train", 30), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        made[f"{part}-images-idx3-ubyte"] = idx_bytes(images)
        made[f"{part}-labels-idx1-ubyte"] = idx_bytes(np.arange(count, dtype=np.uint8) % 2)
    return made


def packed() -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in contents().items()}


def idx_entry(*urls: str, holds: bool = False, **changes):
    files = [
        {"name": name, "md5": m.md5(data), "bytes": len(data)} for name, data in packed().items()
    ]
    if holds:
        for file in files:
            file["holds"] = m.sha256(contents()[file["name"].removesuffix(".gz")])
    about = {"folder": "Tiny/raw", "mirrors": list(urls), "files": files, **changes}
    return m.entry(about)


def assert_whole(root: Path) -> None:
    raw = root / "Tiny/raw"
    assert {p.name: p.read_bytes() for p in raw.iterdir()} == contents()
    assert_clean(root)


def assert_clean(root: Path) -> None:
    """Nothing but locks is left of the work."""
    left = [p for p in (root / HIDDEN).rglob("*") if p.suffix != ".lock"]
    assert left == []


def assert_nothing(root: Path) -> None:
    assert not (root / "Tiny/raw").exists()
    for name in ("unpacked", "ready"):
        assert not (root / HIDDEN / "mnist" / name).exists()


def test_files_come_from_the_first_mirror_and_only_once(server, tmp_path):
    server.files = packed()
    assert fetch(idx_entry(server.url), tmp_path)
    assert_whole(tmp_path)
    assert len(server.asked) == 4
    assert not fetch(idx_entry(server.url), tmp_path)
    assert len(server.asked) == 4


@pytest.mark.parametrize("status", [403, 404, 503])
def test_the_next_mirror_is_asked_when_one_refuses(server, tmp_path, status):
    server.files = {f"good/{name}": data for name, data in packed().items()}
    server.status = {f"bad/{name}": [status] * 9 for name in packed()}
    assert fetch(idx_entry(f"{server.url}bad/", f"{server.url}good/"), tmp_path)
    assert_whole(tmp_path)


def test_a_dead_first_mirror(server, tmp_path):
    server.files = packed()
    assert fetch(idx_entry("http://127.0.0.1:9/", server.url), tmp_path)
    assert_whole(tmp_path)


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.files = packed()
    server.status = {f"{NAMES[0]}.gz": [503, 429]}
    assert fetch(idx_entry(server.url), tmp_path)
    assert_whole(tmp_path)


def test_when_all_mirrors_fail_one_message_says_what_each_said(server, tmp_path):
    server.status = {f"{NAMES[0]}.gz": [403]}
    with pytest.raises(UserError) as caught:
        fetch(idx_entry(server.url, "http://127.0.0.1:9/"), tmp_path)
    message = str(caught.value)
    assert "HTTP 403" in message and "127.0.0.1:9" in message
    assert "spinal data import tiny PATH" in message
    assert_nothing(tmp_path)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_continued(server, tmp_path, ranges):
    name = f"{NAMES[0]}.gz"
    server.files, server.ranges, server.cut = packed(), ranges, {name: [1000, 2000]}
    assert fetch(idx_entry(server.url), tmp_path)
    assert_whole(tmp_path)
    wanted = [r for path, r in server.asked if path == name]
    assert wanted[:2] == [None, "bytes=1000-"]
    assert len(wanted) == 3


def test_a_partial_file_survives_and_the_same_command_continues(server, tmp_path):
    name = f"{NAMES[0]}.gz"
    server.files, server.cut = packed(), {name: [500, *[0] * 9]}
    with pytest.raises(UserError, match="the connection was cut"):
        fetch(idx_entry(server.url), tmp_path)
    assert_nothing(tmp_path)
    partial = tmp_path / HIDDEN / "mnist/downloads" / f"{name}.partial"
    assert partial.read_bytes() == packed()[name][:500]
    server.asked.clear()
    server.cut.clear()
    assert fetch(idx_entry(server.url), tmp_path)
    assert server.asked[0] == (name, "bytes=500-")
    assert_whole(tmp_path)


@pytest.mark.parametrize("beginning", [b"another mirror's beginning", b"x" * 10_000])
def test_a_wrong_beginning_is_thrown_away(server, tmp_path, beginning):
    """Also one that is longer than the file."""
    folder = tmp_path / HIDDEN / "mnist/downloads"
    folder.mkdir(parents=True)
    (folder / f"{NAMES[1]}.gz.partial").write_bytes(beginning)
    server.files = packed()
    assert fetch(idx_entry(server.url), tmp_path)
    assert_whole(tmp_path)


@pytest.mark.parametrize("content", [b"<html>log in first</html>", b""])
def test_wrong_bytes_are_refused_and_the_next_mirror_asked(server, tmp_path, content):
    server.files = {f"good/{name}": data for name, data in packed().items()}
    server.files |= {f"bad/{name}": content for name in packed()}
    with pytest.raises(UserError, match="its md5 is"):
        fetch(idx_entry(f"{server.url}bad/"), tmp_path)
    assert_nothing(tmp_path)
    assert_clean(tmp_path)
    assert fetch(idx_entry(f"{server.url}bad/", f"{server.url}good/"), tmp_path)
    assert_whole(tmp_path)


def test_of_a_file_compressed_again_the_contents_decide(server, tmp_path):
    server.files = {name: gzip.compress(data, 1) for name, data in
                    ((f"{n}.gz", d) for n, d in contents().items())}  # fmt: skip
    with pytest.raises(UserError, match="its md5 is"):
        fetch(idx_entry(server.url), tmp_path)
    assert fetch(idx_entry(server.url, holds=True), tmp_path)
    assert_whole(tmp_path)


def test_ones_own_mirror_comes_first(server, tmp_path, monkeypatch):
    server.files = {f"own/mnist/{name}": data for name, data in packed().items()}
    monkeypatch.setenv("SPINAL_MIRROR", f"{server.url}own/")
    assert fetch(idx_entry("http://127.0.0.1:9/"), tmp_path)
    assert_whole(tmp_path)
    assert all(path.startswith("own/mnist/") for path, _ in server.asked)


def test_offline_names_the_missing_files_and_touches_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SPINAL_OFFLINE", "1")
    with pytest.raises(UserError, match=f"SPINAL_OFFLINE.*missing {NAMES[0]}.*missing {NAMES[3]}"):
        fetch(idx_entry(server.url), tmp_path / "root")
    assert not (tmp_path / "root").exists()
    assert server.asked == []


def test_only_what_is_missing_or_damaged_is_fetched(server, tmp_path):
    server.files = packed()
    fetch(idx_entry(server.url, holds=True), tmp_path)
    raw = tmp_path / "Tiny/raw"
    (raw / NAMES[1]).unlink()
    damaged = bytearray((raw / NAMES[2]).read_bytes())
    damaged[100] ^= 1
    (raw / NAMES[2]).write_bytes(damaged)
    server.asked.clear()
    assert fetch(idx_entry(server.url, holds=True), tmp_path)
    assert {path for path, _ in server.asked} == {f"{NAMES[1]}.gz", f"{NAMES[2]}.gz"}
    assert_whole(tmp_path)


def test_what_lies_there_packed_is_not_downloaded(server, tmp_path):
    raw = tmp_path / "Tiny/raw"
    raw.mkdir(parents=True)
    for name, data in packed().items():
        (raw / name).write_bytes(data)
    assert fetch(idx_entry(server.url), tmp_path)
    assert server.asked == []
    assert {name: (raw / name).read_bytes() for name in NAMES} == contents()


def image_entry(server, data: bytes, **changes):
    files = [{"name": "images.zip", "md5": m.md5(data)}]
    about = {"mirrors": [server.url], "files": files}
    node = {
        "source": "folder", "options": {"folder": "birds", "train": "train", "test": "val"},
        "num_classes": 2, "train_size": 6, "test_size": 4, **changes,
    }  # fmt: skip
    return m.entry(about, **node)


BIRDS = m.tree({"train": 3, "val": 2}, ["crow", "wren"], "birds_v2/")


def test_a_tree_of_images(server, tmp_path):
    server.files["images.zip"] = m.zip_of({**BIRDS, "birds_v2/train/crow/none.gif": b"GIF89a"})
    assert fetch(image_entry(server, server.files["images.zip"]), tmp_path)
    found = {str(p.relative_to(tmp_path / "birds")) for p in (tmp_path / "birds").rglob("*.*")}
    assert found == {name.removeprefix("birds_v2/") for name in BIRDS}
    assert_clean(tmp_path)


@pytest.mark.parametrize("pack", [m.zip_of, m.tar_of])
def test_an_archive_that_leads_outside(server, tmp_path, pack):
    server.files["images.zip"] = pack({**BIRDS, "a/../../evil.png": b"evil"})
    root = tmp_path / "a/root"
    with pytest.raises(UserError, match="would write outside"):
        fetch(image_entry(server, server.files["images.zip"]), root)
    assert not (root / "birds").exists()
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"] == []


def test_a_damaged_archive_without_a_checksum_is_not_kept(server, tmp_path):
    server.files["images.zip"] = m.zip_of(BIRDS)[:-200]
    bare = image_entry(server, b"")
    bare.about.files[0].__dict__["md5"] = None
    with pytest.raises(UserError, match="damaged"):
        fetch(bare, tmp_path)
    server.files["images.zip"] = m.zip_of(BIRDS)
    assert fetch(bare, tmp_path)


def test_an_archive_of_other_images(server, tmp_path):
    server.files["images.zip"] = m.zip_of(BIRDS)
    with pytest.raises(UserError, match=r"not Tiny.*train/ has 6 images, expected 7.*deleted"):
        fetch(image_entry(server, server.files["images.zip"], train_size=7), tmp_path)
    assert not (tmp_path / "birds").exists()
    assert_clean(tmp_path)


def test_a_folder_in_the_way_is_not_touched(server, tmp_path):
    server.files["images.zip"] = m.zip_of(BIRDS)
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="there already"):
        fetch(image_entry(server, server.files["images.zip"]), tmp_path)
    assert (tmp_path / "birds/notes.txt").read_text() == "mine"
    assert server.asked == []


@pytest.mark.parametrize("when", ["downloading", "unpacking"])
def test_a_full_disk(server, tmp_path, monkeypatch, when):
    """The disk takes so many bytes and then no more."""
    server.files = packed()
    opened, room = Path.open, [3000 if when == "downloading" else sum(map(len, packed().values()))]

    def open_limited(self: Path, mode: str = "r", *args, **kwargs):
        file = opened(self, mode, *args, **kwargs)
        if mode not in ("wb", "ab", "xb"):
            return file
        write = file.write

        class Limited:
            def __enter__(self):
                return self

            def __exit__(self, *caught):
                file.close()

            def write(self, data):
                part = data[: room[0]]
                room[0] -= len(part)
                write(part)
                if len(part) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return len(data)

        return Limited()

    entry = idx_entry(server.url)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_limited)
        with pytest.raises(UserError, match=r"the disk of .* is full.*issue the command again"):
            fetch(entry, tmp_path)
    assert_nothing(tmp_path)
    kept = sum(p.stat().st_size for p in (tmp_path / HIDDEN / "mnist/downloads").iterdir())
    assert kept > 0
    server.asked.clear()
    assert fetch(entry, tmp_path)  # there is room again
    assert_whole(tmp_path)
    if when == "unpacking":
        assert server.asked == []
    else:
        assert server.asked[0][1] == f"bytes={3000}-"


def test_two_processes_fetch_at_once(server, tmp_path):
    """The second waits for the first and finds everything there."""
    server.files = packed()
    about = {"state": "auto", "folder": "Tiny/raw", "mirrors": [server.url], "files": [
        {"name": name, "md5": m.md5(data)} for name, data in packed().items()
    ]}  # fmt: skip
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/tiny.yaml").write_text(
        yaml.safe_dump({"title": "Tiny", "source": "mnist", "num_classes": 2, "about": about})
    )
    command = [
        sys.executable, "-c", "from spinal_repro.cli.spinal import main; main()", "data", "fetch",
        "tiny", "--root", str(tmp_path / "root"), "--config-dir", str(tmp_path),
    ]  # fmt: skip
    server.gate.clear()
    logs = [(tmp_path / f"{number}.log").open("w+") for number in range(2)]
    running = [subprocess.Popen(command, stdout=log, stderr=log, text=True) for log in logs]
    said = ["", ""]
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (server.asked and any("waiting" in s for s in said)):
        time.sleep(0.05)
        said = [(tmp_path / f"{number}.log").read_text() for number in range(2)]
    server.gate.set()
    assert [process.wait(timeout=300) for process in running] == [0, 0], said
    for log in logs:
        log.close()
    assert sum("waiting for it" in text for text in said) == 1, said
    assert len(server.asked) == 4
    assert_whole(tmp_path / "root")
