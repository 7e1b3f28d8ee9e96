"""Every data set of the catalog that is no idx file: from a mirror, or imported, to tensors."""

import dataclasses
import io
import pickle

import mirror as m
import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets as tv

from spinal_repro.config import compose
from spinal_repro.data import fetch as fetch_module
from spinal_repro.data import imports as imports_module
from spinal_repro.data.catalog import File, entry_for
from spinal_repro.data.fetch import fetch
from spinal_repro.data.imports import import_data
from spinal_repro.data.sources import load_dataset
from spinal_repro.data.stage import HIDDEN
from spinal_repro.errors import UserError

CLASSES = [f"class {label}" for label in range(4)]


def config(name, train, test, *more):
    sizes = [f"dataset.train_size={train}", f"dataset.test_size={test}"]
    return compose([f"dataset={name}", *sizes, *more]).dataset


def images(count, side):
    """Images ``[N, 3, S, S]``: channel c of image n starts with 10 n + c, then 200."""
    made = np.zeros((count, 3, side, side), np.uint8)
    made[:, :, 0, 0] = 10 * np.arange(count)[:, None] + np.arange(3)
    made[:, :, 0, 1] = 200
    return made


def assert_holds(part, count):
    assert part.images.dtype == torch.uint8 and part.labels.dtype == torch.int64
    assert torch.equal(part.images, torch.from_numpy(images(count, part.images.shape[-1])))
    assert part.labels.tolist() == [label % 10 for label in range(count)]


def cifar(kind, labels, monkeypatch):
    """Batches of ten images in the archive of a CIFAR, its sums known to torchvision."""
    files = {}

    def batch(content):
        data = pickle.dumps(content)
        return lambda name: files.setdefault(name, data) and [name, m.md5(data)]

    content = {"data": images(10, 32).reshape(10, -1), labels: list(range(10))}
    monkeypatch.setattr(kind, "train_list", [batch(content)(n) for n, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [batch(content)(n) for n, _ in kind.test_list])
    names = {kind.meta["key"]: [f"c{n}" for n in range(100)]}
    _, md5 = batch(names)(kind.meta["filename"])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5})
    archive = m.tar_of({f"{kind.base_folder}/{n}": data for n, data in files.items()})
    contents = [File(name, md5=m.md5(data)) for name, data in files.items()]
    return {kind.filename: archive}, contents


def svhn(monkeypatch):
    files = {}
    for part, count in (("train", 20), ("test", 10)):
        out = io.BytesIO()
        pixels = images(count, 32).transpose(2, 3, 1, 0)  # as published: H, W, C, N
        labels = [10 if label % 10 == 0 else label % 10 for label in range(count)]
        savemat(out, {"X": pixels, "y": np.array(labels, np.uint8)[:, None]})
        url, name, _ = tv.SVHN.split_list[part]
        files[name] = out.getvalue()
        known = {**tv.SVHN.split_list, part: [url, name, m.md5(files[name])]}
        monkeypatch.setattr(tv.SVHN, "split_list", known)
    return files, []


def stl10(monkeypatch):
    files = {"unlabeled_X.bin": images(3, 96).tobytes(), "class_names.txt": b"airplane\n"}
    for part, count in (("train", 20), ("test", 10)):
        files[f"{part}_X.bin"] = images(count, 96).transpose(0, 1, 3, 2).tobytes()
        files[f"{part}_y.bin"] = bytes(label % 10 + 1 for label in range(count))
    for part in ("train", "test"):
        known = [[name, m.md5(files[name])] for name, _ in getattr(tv.STL10, f"{part}_list")]
        monkeypatch.setattr(tv.STL10, f"{part}_list", known)
    contents = [File(n, md5=m.md5(data)) for n, data in files.items() if n.endswith(".bin")]
    archive = m.tar_of({f"stl10_binary/{name}": data for name, data in files.items()})
    return {tv.STL10.filename: archive}, contents


MADE = {
    "cifar10": lambda patch: cifar(tv.CIFAR10, "labels", patch),
    "cifar100": lambda patch: cifar(tv.CIFAR100, "fine_labels", patch),
    "svhn": svhn,
    "stl10": stl10,
}


@pytest.fixture(params=MADE)
def published(request, monkeypatch):
    """A configuration, the catalog's record of it, and the files of its mirror."""
    files, contents = MADE[request.param](monkeypatch)
    train = 50 if request.param == "cifar10" else 10 if request.param == "cifar100" else 20
    wanted = config(request.param, train, 10)
    entry = entry_for(wanted)
    served = [File(name, md5=m.md5(data)) for name, data in files.items()]
    about = dataclasses.replace(entry.about, files=served, contents=contents)
    return wanted, dataclasses.replace(entry, about=about), files


def test_data_sets_of_torchvision(published, tmp_path, monkeypatch):
    wanted, entry, files = published
    with m.serving() as server:
        server.files = files
        about = dataclasses.replace(entry.about, mirrors=[server.url])
        entry = dataclasses.replace(entry, about=about)
        monkeypatch.setattr(fetch_module, "entry_for", lambda config: entry)
        with pytest.raises(UserError, match="missing"):
            load_dataset(wanted, tmp_path)
        assert server.asked == [], "nothing is fetched unless it is asked for"
        dataset = load_dataset(wanted, tmp_path, download=True)
    repeats = wanted.train_size // 10 if wanted.name == "cifar10" else 1
    if repeats == 1:
        assert_holds(dataset.train, wanted.train_size)
    else:
        batch = torch.from_numpy(images(10, 32))
        assert torch.equal(dataset.train.images, batch.repeat(repeats, 1, 1, 1))
    assert_holds(dataset.test, 10)


def test_they_can_be_imported_from_their_archives_or_files(published, tmp_path):
    wanted, entry, files = published
    (tmp_path / "mine/downloads").mkdir(parents=True)
    for name, data in files.items():
        (tmp_path / "mine/downloads" / name).write_bytes(data)
    assert import_data(entry, tmp_path / "root", [tmp_path / "mine"])
    assert_holds(load_dataset(wanted, tmp_path / "root").test, 10)
    assert {p.name for p in (tmp_path / "mine/downloads").iterdir()} == set(files)


def test_an_archive_that_lies_there_is_unpacked(published, tmp_path, monkeypatch):
    """As torchvision leaves it; no network is needed or used."""
    wanted, entry, files = published
    monkeypatch.setenv("SPINAL_OFFLINE", "1")
    monkeypatch.setattr(imports_module, "entry_for", lambda config: entry)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert_holds(load_dataset(wanted, tmp_path).test, 10)


def test_a_changed_file_is_refused(published, tmp_path):
    wanted, entry, files = published
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    import_data(entry, tmp_path / "root", [tmp_path])
    path = entry.path(tmp_path / "root") / entry.contents[0].name
    path.write_bytes(path.read_bytes()[:-1] + b"\0\1")
    with pytest.raises(UserError, match=f"{path.name} is damaged"):
        load_dataset(wanted, tmp_path / "root")


FOLDERS = {  # name: (prefix of the parts in the download, {part there: images a class})
    "cinic10": ("", {"train": 3, "valid": 2, "test": 1}),
    "caltech101": ("caltech101/", {"train": 3, "eval": 2, "test": 1}),
    "bird225": ("", {"train": 3, "valid": 2, "test": 1, "consolidated": 6}),
    "stanford_cars": ("car_data/car_data/", {"train": 3, "test": 1}),
    "flowers102": ("flower_data/flower_data/", {"train": 3, "valid": 1}),
    "fruits360": ("fruits-360_dataset/fruits-360/", {"Training": 3, "Test": 1}),
    "hymenoptera": ("hymenoptera_data/", {"train": 3, "val": 1}),
}


@pytest.fixture(params=[*FOLDERS, "monkeys10"])
def photographs(request):
    """A configuration, its record, and image files as they are published."""
    name = request.param
    if name == "monkeys10":
        files = m.tree({"training/training": 3, "validation/validation": 1}, CLASSES)
    else:
        prefix, parts = FOLDERS[name]
        files = m.tree(parts, CLASSES, prefix)
    extra = {
        "flowers102": {"flower_data/flower_data/test/1.png": m.png(1)},
        "fruits360": {"fruits-360_dataset/fruits-360/test-multiple_fruits/a.png": m.png(1)},
        "hymenoptera": {"hymenoptera_data/train/class 0/imageNotFound.gif": b"GIF89a"},
    }
    files |= {**extra.get(name, {}), "__MACOSX/train/class 0/._0.png": b"", "README.md": b"hello"}
    more = ["dataset.num_classes=4"]
    if name in ("cinic10", "caltech101", "bird225"):
        more.append("dataset.val_size=8")
    wanted = config(name, 12, 4, *more)
    return wanted, entry_for(wanted), files


def assert_photographs(wanted, root):
    dataset = load_dataset(wanted, root)
    assert list(dataset.classes) == CLASSES
    assert dataset.train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert dataset.test.labels.tolist() == [0, 1, 2, 3]
    assert (dataset.val is not None) == (wanted.val_size is not None)
    left = [p for p in (root / HIDDEN).rglob("*") if p.suffix != ".lock"]
    assert left == []


@pytest.mark.parametrize("how", ["zip", "tar", "folder", "zip in a folder", "zip in a zip"])
def test_photographs_are_imported_as_people_have_them(photographs, tmp_path, how):
    wanted, entry, files = photographs
    mine = tmp_path / "mine"
    mine.mkdir()
    path = mine / {"zip": "a.zip", "tar": "a.tar.gz"}.get(how, "")
    if how == "folder":
        for name, data in files.items():
            (mine / name).parent.mkdir(parents=True, exist_ok=True)
            (mine / name).write_bytes(data)
    elif how == "tar":
        path.write_bytes(m.tar_of(files))
    else:
        packed = m.zip_of(files)
        packed = m.zip_of({"inner.zip": packed}) if how == "zip in a zip" else packed
        (mine / "a.zip").write_bytes(packed)
    before = {p: p.stat().st_mtime_ns for p in mine.rglob("*")}
    assert import_data(entry, tmp_path / "root", [path])
    assert_photographs(wanted, tmp_path / "root")
    assert {p: p.stat().st_mtime_ns for p in mine.rglob("*")} == before, "theirs is left as it is"
    assert not import_data(entry, tmp_path / "root", [path])


@pytest.mark.parametrize("name", ["cinic10", "hymenoptera"])
def test_photographs_are_fetched(tmp_path, name):
    more = ["dataset.val_size=8"] if name == "cinic10" else []
    wanted = config(name, 12, 4, "dataset.num_classes=4", *more)
    entry = entry_for(wanted)
    prefix, parts = FOLDERS[name]
    pack = m.tar_of if name == "cinic10" else m.zip_of
    [file] = entry.about.files
    with m.serving() as server:
        data = pack(m.tree(parts, CLASSES, prefix))
        server.files[file.name] = data
        about = dataclasses.replace(
            entry.about, mirrors=[server.url], files=[File(file.name, md5=m.md5(data))]
        )
        assert fetch(dataclasses.replace(entry, about=about), tmp_path)
    assert_photographs(wanted, tmp_path)


@pytest.mark.parametrize("name", ["bird225", "stanford_cars"])
def test_what_cannot_be_fetched_says_how_to_get_it(tmp_path, name):
    entry = entry_for(compose([f"dataset={name}"]).dataset)
    with pytest.raises(UserError, match=f"cannot be fetched.*spinal data import {name}"):
        fetch(entry, tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_another_release_is_counted_and_refused(tmp_path):
    entry = entry_for(config("bird225", 12, 4, "dataset.num_classes=4", "dataset.val_size=8"))
    files = m.tree({"train": 3, "valid": 2, "test": 1}, [*CLASSES, "class 5"])
    (tmp_path / "a.zip").write_bytes(m.zip_of(files))
    with pytest.raises(UserError) as caught:
        import_data(entry, tmp_path / "root", [tmp_path / "a.zip"])
    message = str(caught.value)
    assert "train/ has 5 folders of classes, expected 4" in message
    assert "test/ has 5 images, expected 4" in message
    assert "dataset.num_classes=N" in message
    assert not (tmp_path / "root/bird225").exists()


def test_parts_with_other_classes_are_refused(tmp_path):
    entry = entry_for(config("stanford_cars", 12, 4, "dataset.num_classes=4"))
    files = m.tree({"train": 3}, CLASSES) | m.tree({"test": 1}, [*CLASSES[1:], "truck"])
    (tmp_path / "a.zip").write_bytes(m.zip_of(files))
    with pytest.raises(UserError, match=r"test/ has other classes.*class 0, truck"):
        import_data(entry, tmp_path / "root", [tmp_path / "a.zip"])


def test_nothing_of_the_kind(tmp_path):
    entry = entry_for(config("monkeys10", 12, 4))
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match=r"no training/CLASS/, validation/CLASS/ at any depth"):
        import_data(entry, tmp_path / "root", [tmp_path / "mine"])
    with pytest.raises(UserError, match="there is no"):
        import_data(entry, tmp_path / "root", [tmp_path / "nowhere"])
