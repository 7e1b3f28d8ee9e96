"""Data sets are fetched or imported whole and verified, or not at all."""

import errno
import gzip
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import mirror as m
from helpers.composing import composed
from helpers.idx_files import idx_bytes

from spinal_repro.data import assemble, download, install
from spinal_repro.data.assemble import problems
from spinal_repro.data.catalog import File, entry_for, find_entry
from spinal_repro.data.install import HIDDEN, fetch, import_data
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import UserError

_RANDOM = np.random.default_rng(0)
CONTENTS = {
    f"{part}-{kind}-ubyte": idx_bytes(
        _RANDOM.integers(0, 256, (count, 28, 28) if "3" in kind else (count,), dtype=np.uint8)
    )
    for part, count in (("train", 30), ("t10k", 20))
    for kind in ("images-idx3", "labels-idx1")
}
NAMES = list(CONTENTS)
PACKED = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in CONTENTS.items()}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.01)
    with m.serving() as mirror:
        mirror.files = dict(PACKED)
        yield mirror


def idx_entry(*urls: str):
    files = [File(name, md5=m.md5(data)) for name, data in PACKED.items()]
    contents = [File(name, sha256=m.sha256(data)) for name, data in CONTENTS.items()]
    about = {"folder": "Tiny/raw", "mirrors": list(urls)}
    return m.with_about(m.entry(about), files=files, contents=contents)


def assert_whole(root: Path) -> None:
    assert {p.name: p.read_bytes() for p in (root / "Tiny/raw").iterdir()} == CONTENTS
    assert left_over(root) == []


def left_over(root: Path) -> list[Path]:
    return [p for p in (root / HIDDEN).rglob("*") if p.suffix != ".lock"]


def test_a_failure_leaves_partial_downloads_only(server, tmp_path):
    server.cut = {f"{NAMES[1]}.gz": [10, *[0] * 9]}
    with pytest.raises(UserError, match="the connection was cut"):
        fetch(idx_entry(server.url), tmp_path)
    files = {p.name for p in left_over(tmp_path) if p.is_file()}
    assert files == {f"{NAMES[0]}.gz", f"{NAMES[1]}.gz.partial"}
    assert not (tmp_path / "Tiny").exists()
    server.cut, server.asked = {}, []
    assert fetch(idx_entry(server.url), tmp_path)
    assert server.asked[0] == (f"{NAMES[1]}.gz", "bytes=10-") and len(server.asked) == 3
    assert_whole(tmp_path)
    server.asked.clear()
    assert not fetch(idx_entry(server.url), tmp_path) and server.asked == []


def test_offline_names_the_missing_files_and_writes_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SPINAL_OFFLINE", "1")
    with pytest.raises(UserError, match=f"SPINAL_OFFLINE.*missing {NAMES[0]}.*missing {NAMES[3]}"):
        fetch(idx_entry(server.url), tmp_path / "root")
    assert not (tmp_path / "root").exists() and server.asked == []


def test_only_missing_and_damaged_files_are_fetched(server, tmp_path):
    entry, raw = idx_entry(server.url), tmp_path / "Tiny/raw"
    fetch(entry, tmp_path)
    (raw / NAMES[1]).unlink()
    damaged = bytearray((raw / NAMES[2]).read_bytes())
    damaged[100] ^= 1
    (raw / NAMES[2]).write_bytes(damaged)
    (missing, wrong) = problems(entry, tmp_path)
    assert missing == f"missing {NAMES[1]}" and wrong.startswith(f"{NAMES[2]} is damaged")
    server.asked.clear()
    assert fetch(entry, tmp_path)
    assert {path for path, _ in server.asked} == {f"{NAMES[1]}.gz", f"{NAMES[2]}.gz"}
    assert_whole(tmp_path)


def test_a_full_disk(server, tmp_path, monkeypatch):
    """Files that were downloaded before are used later."""
    entry, real = idx_entry(server.url), install.download

    def full(*given):
        if len(server.asked) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(install, "download", full)
        with pytest.raises(UserError, match=r"cannot be written.*run the command again"):
            fetch(entry, tmp_path)
    assert not (tmp_path / "Tiny").exists()
    assert fetch(entry, tmp_path) and len(server.asked) == 4
    assert_whole(tmp_path)


def test_of_two_that_fetch_at_once_one_waits(server, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: fetch(idx_entry(server.url), tmp_path), range(2)))
    assert len(server.asked) == 4
    assert_whole(tmp_path)


@pytest.mark.parametrize("name", ["fetch", "import_data"])
def test_of_two_that_install_a_folder_at_once_one_waits(server, tmp_path, monkeypatch, name):
    """As the jobs of a first sweep do; both see that it is missing before one gets the lock."""
    config, entry, files = photographs("hymenoptera")
    (tmp_path / "a.zip").write_bytes(m.zip_of(files))
    root, both, lock = tmp_path / "root", threading.Barrier(2), install.exclusive_lock
    monkeypatch.setattr(install, "exclusive_lock", lambda *about: both.wait() >= 0 and lock(*about))
    entry = served(server, entry, m.zip_of(files))
    given = (entry, root, [tmp_path / "a.zip"])[: 3 if name == "import_data" else 2]
    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(lambda _: getattr(install, name)(*given), range(2)))
    assert_photographs(config, root)


# Image folders

CLASSES = [f"class {label}" for label in range(4)]
# name: prefix of the parts in the download, images per class of the parts, a file to pass over
FOLDERS = {
    "cinic10": ("", {"train": 3, "valid": 2, "test": 1}, "README.md"),
    "caltech101": ("caltech101/", {"train": 3, "eval": 2, "test": 1}, "README.md"),
    "bird225": ("", {"train": 3, "valid": 2, "test": 1, "consolidated": 6}, "README.md"),
    "stanford_cars": ("car_data/car_data/", {"train": 3, "test": 1}, "README.md"),
    "flowers102": ("flower_data/flower_data/", {"train": 3, "valid": 1}, "test/1.png"),
    "fruits360": ("fruits-360/", {"Training": 3, "Test": 1}, "test-multiple_fruits/a.png"),
    "hymenoptera": ("hymenoptera_data/", {"train": 3, "val": 1}, "train/class 0/notFound.gif"),
    "monkeys10": ("", {"training/training": 3, "validation/validation": 1}, "README.md"),
}


def photographs(name):
    """A configuration for four classes, its entry, and image files as published."""
    prefix, parts, other = FOLDERS[name]
    files = m.tree(parts, CLASSES, prefix)
    files |= {prefix + other: m.png(1), "__MACOSX/train/class 0/._0.png": b""}
    sizes = ["dataset.num_classes=4", "dataset.train_size=12", "dataset.test_size=4"]
    if len(parts) > 2:
        sizes.append("dataset.val_size=8")
    config = composed(f"dataset={name}", *sizes).dataset
    return config, entry_for(config), files


def assert_photographs(config, root):
    dataset = load_dataset(config, root)
    assert list(dataset.classes) == CLASSES
    assert dataset.train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert dataset.test.labels.tolist() == [0, 1, 2, 3]
    assert (dataset.val is not None) == (config.val_size is not None)
    assert left_over(root) == []


def served(server, entry, data):
    """The entry with one archive on the mirror."""
    server.files["images.zip"] = data
    files = [File("images.zip", md5=m.md5(data))]
    return m.with_about(entry, state="auto", mirrors=[server.url], files=files)


@pytest.mark.parametrize("name", FOLDERS)
def test_photographs_are_imported_from_an_archive_or_a_folder(name, tmp_path):
    config, entry, files = photographs(name)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.zip").write_bytes(m.zip_of(files))
    assert import_data(entry, tmp_path / "root", [tmp_path / "mine"])
    assert import_data(entry, tmp_path / "again", [tmp_path / "root"])
    for root in ("root", "again"):
        assert_photographs(config, tmp_path / root)
        assert not import_data(entry, tmp_path / root, [tmp_path / "mine"])


def test_a_set_that_needs_a_login_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"cannot be fetched.*spinal data import bird225"):
        fetch(find_entry("bird225"), tmp_path / "root")
    assert not (tmp_path / "root").exists()


PARTS = {"train": 3, "valid": 2, "test": 1}
WHOLE = m.tree(PARTS, CLASSES)
ODD = m.tree({"train": 3}, CLASSES[:1]) | m.tree({"valid": 2, "test": 1}, ["odd"])
WRONG = {
    "train/ has 5 class folders, expected 4": m.zip_of(m.tree(PARTS, [*CLASSES, "more"])),
    "missing test/": m.zip_of(m.tree({"train": 3, "valid": 2}, CLASSES)),
    "valid/ has other classes.*class 0, odd": m.zip_of(m.tree(PARTS, CLASSES[1:]) | ODD),
    "no train/CLASS/, valid/CLASS/, test/CLASS/ .*at any depth": m.zip_of({"README.md": b""}),
    "train/ has 13 images, expected 12": m.zip_of({**WHOLE, "train/class 0/more.png": m.png(1)}),
    "not a safe archive": m.tar_of({**WHOLE, "a/../../evil.png": b"evil"}),
    "is damaged": m.zip_of(WHOLE)[:-200],
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_archive_is_neither_imported_nor_fetched(server, tmp_path, message):
    _, entry, _ = photographs("bird225")
    (tmp_path / "mine.zip").write_bytes(WRONG[message])
    root = tmp_path / "a/root"
    with pytest.raises(UserError, match=rf"mine\.zip cannot be imported as Bird-225.*{message}"):
        import_data(entry, root, [tmp_path / "mine.zip"])
    with pytest.raises(UserError, match=f"the download is not Bird-225.*{message}.*deleted"):
        fetch(served(server, entry, WRONG[message]), root)
    files = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == ["bird225.lock", "mine.zip"]
    assert fetch(served(server, entry, m.tar_of(WHOLE)), root)


def test_of_two_folders_for_a_part_none_is_taken(tmp_path):
    _, entry, _ = photographs("bird225")
    (tmp_path / "a.zip").write_bytes(m.zip_of(WHOLE | m.tree({"b/train": 3}, ["x", *CLASSES[1:]])))
    with pytest.raises(UserError, match="several folders could be the part train"):
        import_data(entry, tmp_path / "root", [tmp_path / "a.zip"])
    assert not (tmp_path / "root/bird225").exists() and left_over(tmp_path / "root") == []


def test_a_folder_in_the_way_is_not_touched(server, tmp_path):
    _, entry, files = photographs("bird225")
    (tmp_path / "bird225").mkdir()
    (tmp_path / "bird225/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="rename or delete it first"):
        fetch(served(server, entry, m.zip_of(files)), tmp_path)
    assert (tmp_path / "bird225/notes.txt").read_text() == "mine" and server.asked == []


def test_files_of_another_set_with_the_same_names(tmp_path, monkeypatch):
    """MNIST's files have KMNIST's names; checksums tell them apart."""
    for name, data in PACKED.items():
        (tmp_path / name).write_bytes(data)
    mnist = m.with_about(find_entry("mnist"), contents=idx_entry().about.contents)
    monkeypatch.setattr(assemble, "load_catalog", lambda: {"mnist": mnist})
    with pytest.raises(UserError, match="train-images-idx3-ubyte belongs to MNIST"):
        import_data(find_entry("kmnist"), tmp_path / "root", [tmp_path])
    assert not (tmp_path / "root/KMNIST").exists()
    with pytest.raises(UserError, match="does not exist"):
        import_data(find_entry("kmnist"), tmp_path / "root", [tmp_path / "nowhere"])
