"""CIFAR-10, CIFAR-100, SVHN and STL-10, from files of their formats and from real ones."""

import io
import pickle

import numpy as np
import pytest
import torch
from helpers import mirror as m
from helpers.composing import composed
from scipy.io import savemat
from torchvision import datasets as tv

from spinal_repro.data import install, torchvision_sets
from spinal_repro.data.catalog import File, find_entry
from spinal_repro.data.install import import_data
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import UserError


def images(count, side):
    """Images ``[N, 3, S, S]``: channel c of image n starts with 10 n + c, then 200."""
    made = np.zeros((count, 3, side, side), np.uint8)
    made[:, :, 0, 0] = 10 * np.arange(count)[:, None] + np.arange(3)
    made[:, :, 0, 1] = 200
    return made


def assert_holds(part, count, repeats=1):
    assert part.images.dtype == torch.uint8 and part.labels.dtype == torch.int64
    expected = torch.from_numpy(images(count, part.images.shape[-1])).repeat(repeats, 1, 1, 1)
    assert torch.equal(part.images, expected)
    assert part.labels.tolist() == [label % 10 for label in range(count)] * repeats


def cifar(kind, labels):
    """Batches of ten images in the archive of a CIFAR."""
    content = {"data": images(10, 32).reshape(10, -1), labels: list(range(10))}
    names = [name for name, _ in [*kind.train_list, *kind.test_list]]
    files = {name: pickle.dumps(content, protocol=2) for name in names}
    files[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: [f"c{n}" for n in range(100)]})
    archive = m.tar_of({f"{kind.base_folder}/{n}": d for n, d in files.items()})
    return {kind.filename: archive}, files


def svhn():
    files = {}
    for part, count in (("train", 20), ("test", 10)):
        out = io.BytesIO()
        pixels = images(count, 32).transpose(2, 3, 1, 0)  # as published: H, W, C, N
        labels = [label % 10 or 10 for label in range(count)]
        savemat(out, {"X": pixels, "y": np.array(labels, np.uint8)[:, None]})
        files[f"{part}_32x32.mat"] = out.getvalue()
    return files, files


def stl10():
    files = {"unlabeled_X.bin": images(3, 96).tobytes()}  # is not read
    for part, count in (("train", 20), ("test", 10)):
        files[f"{part}_X.bin"] = images(count, 96).transpose(0, 1, 3, 2).tobytes()
        files[f"{part}_y.bin"] = bytes(label % 10 + 1 for label in range(count))
    return {tv.STL10.filename: m.tar_of({f"stl10_binary/{n}": d for n, d in files.items()})}, files


MADE = {  # how its files are made, and its images in train
    "cifar10": (lambda: cifar(tv.CIFAR10, "labels"), 50),
    "cifar100": (lambda: cifar(tv.CIFAR100, "fine_labels"), 10),
    "svhn": (svhn, 20),
    "stl10": (stl10, 20),
}


@pytest.fixture(params=MADE)
def published(request, monkeypatch):
    """A configuration, its entry with the checksums of small files, and what a mirror serves."""
    make, train = MADE[request.param]
    served, contents = make()
    files, inside = (
        [File(name, md5=m.md5(data)) for name, data in each.items()] for each in (served, contents)
    )
    about = {"mirrors": [], "files": files, "contents": inside}
    entry = m.with_about(find_entry(request.param), **about)
    monkeypatch.setattr(torchvision_sets, "find_entry", lambda name: entry)
    monkeypatch.setattr(install, "entry_for", lambda config: entry)
    sizes = [f"dataset.train_size={train}", "dataset.test_size=10"]
    return composed(f"dataset={request.param}", *sizes).dataset, entry, served


def assert_read(config, entry, root, **options):
    dataset = load_dataset(config, root, **options)
    repeats = 5 if config.name == "cifar10" else 1
    assert_holds(dataset.train, config.train_size // repeats, repeats)
    assert_holds(dataset.test, 10)
    in_files = [f"c{number}" for number in range(100)]
    assert list(dataset.classes) == (in_files if "cifar" in config.name else entry.about.classes)


def test_they_are_fetched_if_allowed_or_unpacked_from_archives(published, tmp_path):
    config, entry, served = published
    with m.serving() as server:
        server.files = served
        entry.about.mirrors.append(server.url)
        with pytest.raises(UserError, match=r"missing .*data\.download=true"):
            load_dataset(config, tmp_path)
        assert server.asked == []
        assert_read(config, entry, tmp_path / "fetched", download=True)
    for name, data in served.items():
        (tmp_path / name).write_bytes(data)
    assert_read(config, entry, tmp_path)


def test_they_are_imported_and_never_opened_with_another_checksum(published, tmp_path):
    config, entry, served = published
    for name, data in served.items():
        (tmp_path / name).write_bytes(data)
    root = tmp_path / "root"
    assert import_data(entry, root, [tmp_path])
    assert_read(config, entry, root)
    path = entry.path(root) / entry.contents[-1].name
    path.write_bytes(b"cposix\nsystem\n(S'touch %s'\ntR." % bytes(tmp_path / "made"))
    with pytest.raises(UserError, match=rf"{path.name} is damaged: its md5 is .*spinal data fetch"):
        load_dataset(config, root)
    assert not (tmp_path / "made").exists()


def test_cifar10_is_what_torchvision_reads(real_data):
    if not (real_data / tv.CIFAR10.base_folder).is_dir():
        pytest.skip(f"there is no {real_data / tv.CIFAR10.base_folder}")
    dataset = load_dataset(composed("dataset=cifar10").dataset, real_data)
    for part, train in ((dataset.train, True), (dataset.test, False)):
        theirs = tv.CIFAR10(real_data, train=train)
        assert np.array_equal(part.images.permute(0, 2, 3, 1), theirs.data)
        assert part.labels.tolist() == theirs.targets
        assert list(dataset.classes) == theirs.classes
