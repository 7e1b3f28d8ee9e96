"""Splits and fingerprints: disjoint, complete, stratified, deterministic, sensitive."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers.composing import composed

from spinal_repro.data.preprocessing import describe_data, split_dataset
from spinal_repro.data.sources import Dataset, ImageSet
from spinal_repro.data.splits import Split, stratified, subset

MNIST = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def uneven_labels(seed=0, classes=10):
    """Labels of classes with between 1 and 400 images, shuffled."""
    random = np.random.default_rng(seed)
    sizes = np.concatenate([[1, 2, 3], random.integers(4, 400, classes - 3)])
    return random.permutation(np.repeat(np.arange(classes), sizes))


def class_counts(labels, indices):
    return np.bincount(labels[indices], minlength=labels.max() + 1)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.999])
def test_stratified(fraction):
    """Every index once, each class with its fraction within an image."""
    labels = uneven_labels()
    first, second = stratified(labels, fraction, seed=0)
    assert np.array_equal(np.sort(np.concatenate([first, second])), np.arange(len(labels)))
    assert (np.diff(first) > 0).all() and (np.diff(second) > 0).all()
    assert not np.array_equal(second, stratified(labels, fraction, seed=1)[1])
    sizes, counts = np.bincount(labels), class_counts(labels, second)
    share = sizes * round(fraction * len(labels)) / len(labels)
    for size, count, exact in zip(sizes, counts, share, strict=True):
        if size > 1:  # both parts get an image, however small the fraction
            assert 1 <= count <= size - 1
        if 1 < count < size - 1:
            assert abs(count - exact) < 1


@pytest.mark.parametrize("sizes", [MNIST, [17], [25]])
def test_the_second_part_has_its_fraction_of_the_whole(sizes):
    """Classes as uneven as MNIST's still give exactly 6,000 of 60,000."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    assert abs(len(stratified(labels, 0.1, seed=0)[1]) - len(labels) / 10) <= 0.5


@pytest.mark.parametrize("limit", [1, 26, 333, 10_000, None])
def test_subset_keeps_the_limit_and_the_proportions(limit):
    labels = uneven_labels()
    indices = np.sort(np.random.default_rng(0).permutation(len(labels))[: len(labels) * 3 // 4])
    kept = subset(labels, indices, limit, seed=0)
    assert len(kept) == min(limit or len(indices), len(indices))
    assert np.isin(kept, indices).all() and (np.diff(kept) > 0).all()
    share = class_counts(labels, indices) * (len(kept) / len(indices))
    assert (np.abs(class_counts(labels, kept) - share) < 1).all()
    assert np.array_equal(kept, subset(labels, indices, limit, seed=0))
    if limit in (26, 333):
        assert not np.array_equal(kept, subset(labels, indices, limit, seed=1))


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("val_fraction", [0.0, 0.1])
def test_the_split_of_a_run(val_fraction, published):
    parts = (uneven_labels(seed, 30) for seed in (0, 1, 2))
    train, test, val = (ImageSet(None, torch.from_numpy(labels)) for labels in parts)
    dataset = Dataset(train, test, val if published else None)
    protocol = dataclasses.replace(composed().protocol, val_fraction=val_fraction)
    every, in_test, in_val = (np.arange(len(images)) for images in (train, test, val))
    expected = every, every[:0], in_test
    if val_fraction:
        halves = stratified(train.labels.numpy(), 0.1, protocol.split_seed)
        expected = (every, in_val, in_test) if published else (*halves, in_test)
    whole, some = split_dataset(dataset, protocol), split_dataset(dataset, protocol, 101)
    assert whole.published_val == some.published_val == (published and val_fraction > 0)
    for part, indices in zip(("train", "val", "test"), expected, strict=True):
        assert np.array_equal(getattr(whole, part), indices)
        kept = getattr(some, part)
        assert np.isin(kept, indices).all() and len(kept) == min(101, len(indices))


def test_the_hash_changes_with_any_change():
    splits = [
        ([0, 1, 2, 3], [4, 5], [0, 1]),
        ([0, 1, 3], [4, 5], [0, 1]),  # one image fewer
        ([0, 1, 2, 6], [4, 5], [0, 1]),  # another image
        ([0, 1, 2, 3], [4, 5], [0, 2]),
        ([0, 1, 3, 2], [4, 5], [0, 1]),  # another order
        ([0, 1, 2], [3, 4, 5], [0, 1]),  # the same images in other parts
        ([4, 5], [0, 1, 2, 3], [0, 1]),
    ]
    hashes = [[Split(*map(np.array, parts)).hash for parts in splits] for _ in range(2)]
    assert len(set(hashes[0])) == len(splits) and hashes[0] == hashes[1]


def test_the_hash_of_images_changes_with_any_change():
    images, labels = torch.arange(18, dtype=torch.uint8).view(2, 1, 3, 3), torch.tensor([0, 1])
    changed = images.clone()
    changed[1, 0, 2, 2] ^= 1
    base = ImageSet(images, labels).hash
    strided = images.mT.contiguous().mT
    assert base == ImageSet(strided, labels).hash, "memory layout must not count"
    others = [
        (changed, labels), (images, torch.tensor([0, 2])), (images.flip(0), labels),
        (images.view(2, 1, 1, 9), labels), (images.to(torch.int8), labels),
    ]  # fmt: skip
    assert len({base, *(ImageSet(*other).hash for other in others)}) == 6


def test_planted_duplicates_are_counted():
    config = composed("dataset=mnist").dataset

    def shared(some, others):
        train, test = (ImageSet(images, torch.zeros(len(images))) for images in (some, others))
        split = Split(*(np.arange(len(images)) for images in (train, (), test)))
        return describe_data(config, Dataset(train, test), split)["test_images_also_in_train"]

    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 1, 28, 28), dtype=torch.uint8, generator=random)
    train, test = images[:20], images[20:].clone()
    assert shared(train, test) == 0
    test[[3, 4, 11]] = train[[7, 0, 7]]
    assert shared(train, test) == 3
    assert shared(train[7:8], test) == 2  # counted in the second argument
    test[3, 0, 27, 27] ^= 1
    assert shared(train[7:8], test) == 1
