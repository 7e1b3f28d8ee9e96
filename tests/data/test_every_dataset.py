"""Every data set of image files: from a mirror, or imported, to its classes and images."""

import dataclasses

import pytest
from helpers import mirror as m

from spinal_repro.config.compose import compose
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


FOLDERS = {  # name: (prefix of the parts in the download, {part there: images a class})
    "cinic10": ("", {"train": 3, "valid": 2, "test": 1}),
    "caltech101": ("caltech101/", {"train": 3, "eval": 2, "test": 1}),
    "bird225": ("", {"train": 3, "valid": 2, "test": 1, "consolidated": 6}),
    "stanford_cars": ("car_data/car_data/", {"train": 3, "test": 1}),
    "flowers102": ("flower_data/flower_data/", {"train": 3, "valid": 1}),
    "fruits360": ("fruits-360_dataset/fruits-360/", {"Training": 3, "Test": 1}),
    "hymenoptera": ("hymenoptera_data/", {"train": 3, "val": 1}),
}


def photographs(name):
    """A configuration, its record, and image files as they are published."""
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


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "zip") for name in (*FOLDERS, "monkeys10")]
    + [("bird225", how) for how in ("tar", "folder", "zip in a folder")],
)
def test_photographs_are_imported_as_people_have_them(name, how, tmp_path):
    wanted, entry, files = photographs(name)
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
        (mine / "a.zip").write_bytes(m.zip_of(files))
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
