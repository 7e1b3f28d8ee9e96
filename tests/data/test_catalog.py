"""The catalog against torchvision, the recipe book's sizes and itself."""

import dataclasses

import pytest
from torchvision import datasets as tv

from spinal_repro.config.compose import compose
from spinal_repro.data.catalog import STATES, entry_for, find_entry, load_catalog, parse_entry
from spinal_repro.data.fetch import siblings_of
from spinal_repro.errors import UserError

CATALOG = load_catalog()
NAMES = [
    *("digits", "mnist", "fashion_mnist", "kmnist", "qmnist"),
    *("emnist_digits", "emnist_letters", "emnist_balanced"),
    *("cifar10", "cifar100", "svhn", "stl10", "cinic10", "caltech101", "bird225"),
    *("stanford_cars", "flowers102", "fruits360", "hymenoptera", "monkeys10"),
]
SIZES = {  # recipe book, section 1.6
    "svhn": (73_257, None, 26_032),
    "stl10": (5_000, None, 8_000),
    "cinic10": (90_000, 90_000, 90_000),
    "caltech101": (6_162, 820, 1_695),
    "bird225": (31_316, 1_125, 1_125),
    "stanford_cars": (8_144, None, 8_041),
    "flowers102": (6_552, None, 818),
    "fruits360": (67_692, None, 22_688),
    "hymenoptera": (244, None, 153),
    "monkeys10": (1_097, None, 272),
    "cifar100": (50_000, None, 10_000),
}


def test_every_data_set_of_the_paper_is_there() -> None:
    assert sorted(CATALOG) == sorted(NAMES)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_published_ones(name: str) -> None:
    assert tuple(CATALOG[name].sizes.values()) == SIZES[name]


@pytest.mark.parametrize("name", NAMES)
def test_records_are_complete(name: str) -> None:
    entry = CATALOG[name]
    about = entry.about
    assert about.state in STATES and about.citation and about.homepage
    assert (about.state == "auto") == (bool(about.files) or name == "digits")
    assert entry.is_folder or entry.contents or name == "digits"
    assert not about.classes or len(about.classes) == entry.num_classes
    config = compose([f"dataset={name}"]).dataset
    assert dataclasses.asdict(entry_for(config)) == dataclasses.asdict(entry)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mnist", tv.MNIST), ("fashion_mnist", tv.FashionMNIST), ("kmnist", tv.KMNIST)],
)
def test_idx_files_are_torchvisions(name: str, kind: type[tv.MNIST]) -> None:
    about = CATALOG[name].about
    assert about.mirrors and set(about.mirrors) <= set(kind.mirrors)
    assert [(file.name, file.md5) for file in about.files] == kind.resources
    assert about.folder == f"{kind.__name__}/raw"


def test_qmnist_is_torchvisions() -> None:
    about = CATALOG["qmnist"].about
    known = [*tv.QMNIST.resources["train"], *tv.QMNIST.resources["test"]]
    assert [(about.mirrors[0] + file.name, file.md5) for file in about.files] == known


@pytest.mark.parametrize("split", ["digits", "letters", "balanced"])
def test_emnist_is_torchvisions(split: str) -> None:
    entry = CATALOG[f"emnist_{split}"]
    [file] = entry.about.files
    assert (entry.about.mirrors[0] + file.name, file.md5) == (tv.EMNIST.url, tv.EMNIST.md5)
    names = [name for name in tv.EMNIST.classes_split_dict[split] if name != "N/A"]
    assert entry.about.classes == names
    assert {other.name for other in siblings_of(entry)} == {
        f"emnist_{other}" for other in ("digits", "letters", "balanced") if other != split
    }


@pytest.mark.parametrize(("name", "kind"), [("cifar10", tv.CIFAR10), ("cifar100", tv.CIFAR100)])
def test_cifar_is_torchvisions(name: str, kind: type[tv.CIFAR10]) -> None:
    entry = CATALOG[name]
    [file] = entry.about.files
    assert (entry.about.mirrors[0] + file.name, file.md5) == (kind.url, kind.tgz_md5)
    known = [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]
    assert [[content.name, content.md5] for content in entry.contents] == known
    assert entry.about.folder == kind.base_folder


def test_svhn_is_torchvisions() -> None:
    about = CATALOG["svhn"].about
    known = [tv.SVHN.split_list[part] for part in ("train", "test")]
    assert [[about.mirrors[0] + f.name, f.name, f.md5] for f in about.files] == known


def test_stl10_is_torchvisions() -> None:
    entry = CATALOG["stl10"]
    [file] = entry.about.files
    assert (entry.about.mirrors[0] + file.name, file.md5) == (tv.STL10.url, tv.STL10.tgz_md5)
    known = sorted([*tv.STL10.train_list, *tv.STL10.test_list])
    assert sorted([content.name, content.md5] for content in entry.contents) == known


def test_both_readings_of_letters_are_one_record() -> None:
    entry = entry_for(compose(["dataset=emnist_letters_62"]).dataset)
    assert entry is not None and entry.name == "emnist_letters"


def test_names_are_looked_up() -> None:
    with pytest.raises(UserError, match="did you mean 'fruits360'"):
        find_entry("fruit360")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"state": "there"}, "state"),
        ({"state": "manual"}, "needs instructions"),
        ({"licens": "MIT"}, "did you mean 'licence'"),
        ({"state": "auto", "files": [{"name": "a"}]}, "need mirrors"),
    ],
)
def test_records_that_are_not_valid(about: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_entry({"about": about}, "tiny")
