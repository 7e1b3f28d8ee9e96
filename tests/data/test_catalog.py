"""The catalog against torchvision, the published sizes and itself."""

import pytest
from helpers.composing import composed
from helpers.idx_files import FOLDERS
from torchvision import datasets as tv

from spinal_repro.data.catalog import STATES, entry_for, load_catalog, parse_entry
from spinal_repro.errors import UserError

CATALOG = load_catalog()
SIZES = {  # as published, or as in the copy that the original scripts read
    "digits": (1_438, None, 359), "mnist": (60_000, None, 10_000),
    "fashion_mnist": (60_000, None, 10_000), "kmnist": (60_000, None, 10_000),
    "qmnist": (60_000, None, 60_000), "emnist_digits": (240_000, None, 40_000),
    "emnist_letters": (124_800, None, 20_800), "emnist_balanced": (112_800, None, 18_800),
    "cifar10": (50_000, None, 10_000), "cifar100": (50_000, None, 10_000),
    "svhn": (73_257, None, 26_032), "stl10": (5_000, None, 8_000),
    "cinic10": (90_000, 90_000, 90_000), "caltech101": (6_162, 820, 1_695),
    "bird225": (31_316, 1_125, 1_125), "stanford_cars": (8_144, None, 8_041),
    "flowers102": (6_552, None, 818), "fruits360": (67_692, None, 22_688),
    "hymenoptera": (244, None, 153), "monkeys10": (1_097, None, 272),
    "stl10_background": (7_501, 501, 8_000), "cifar10_background": (53_001, None, 10_000),
    "cifar100_background": (53_001, None, 10_000), "fruits360_subset": (929, None, 620),
}  # fmt: skip


def test_every_data_set_of_the_paper_is_there_in_its_size() -> None:
    assert {name: tuple(entry.sizes.values()) for name, entry in CATALOG.items()} == SIZES


@pytest.mark.parametrize("name", SIZES)
def test_entries_are_complete(name: str) -> None:
    entry = CATALOG[name]
    about = entry.about
    assert about.state in STATES and about.citation and about.homepage
    assert (about.state == "auto") == (bool(about.files) or name == "digits")
    assert bool(about.instructions) == (about.state != "auto")
    assert bool(about.mirrors) == bool(about.files)
    assert all(url.startswith("https://") and url.endswith("/") for url in about.mirrors)
    assert all(file.md5 or file.sha256 for file in about.files)
    assert entry.is_folder or entry.contents or name == "digits"
    assert not about.classes or len(about.classes) == entry.num_classes
    assert entry_for(composed(f"dataset={name}").dataset) == entry


EMNIST = [["gzip.zip", tv.EMNIST.md5]]
QMNIST = [
    [url.rsplit("/")[-1], md5]
    for part in ("train", "test")
    for url, md5 in tv.QMNIST.resources[part]
]
DOWNLOADS = {
    "mnist": tv.MNIST.resources,
    "fashion_mnist": tv.FashionMNIST.resources,
    "kmnist": tv.KMNIST.resources,
    "qmnist": QMNIST,
    "emnist_digits": EMNIST,
    "emnist_letters": EMNIST,
    "emnist_balanced": EMNIST,
    "cifar10": [[tv.CIFAR10.filename, tv.CIFAR10.tgz_md5]],
    "cifar100": [[tv.CIFAR100.filename, tv.CIFAR100.tgz_md5]],
    "svhn": [tv.SVHN.split_list[part][1:] for part in ("train", "test")],
    "stl10": [[tv.STL10.filename, tv.STL10.tgz_md5]],
}
CONTENTS = {
    kind.base_folder: [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]
    for kind in (tv.CIFAR10, tv.CIFAR100)
} | {tv.STL10.base_folder: [*tv.STL10.train_list, *tv.STL10.test_list]}


@pytest.mark.parametrize("name", DOWNLOADS)
def test_files_and_folders_are_torchvisions(name: str) -> None:
    entry = CATALOG[name]
    known = sorted(map(tuple, DOWNLOADS[name]))
    assert sorted((file.name, file.md5) for file in entry.about.files) == known
    if "mnist" in name:
        assert entry.about.folder == f"{FOLDERS[entry.source]}/raw"
    elif name != "svhn":
        known = sorted({tuple(file) for file in CONTENTS[entry.about.folder]})
        assert sorted((file.name, file.md5) for file in entry.contents) == known
    if name.startswith("emnist"):
        names = tv.EMNIST.classes_split_dict[entry.options["split"]]
        assert entry.about.classes == [each for each in names if each != "N/A"]


def test_both_readings_of_letters_are_one_entry() -> None:
    entry = entry_for(composed("dataset=emnist_letters_62").dataset)
    assert entry is not None and entry.name == "emnist_letters"


def test_entries_that_are_not_valid() -> None:
    for about, message in (({"state": "there"}, "state"), ({"licens": "MIT"}, "'licence'")):
        with pytest.raises(UserError, match=message):
            parse_entry({"about": about}, "tiny")
