"""Splits and fingerprints: disjoint, complete, stratified, deterministic, sensitive."""

import numpy as np
import pytest
from numpy.typing import NDArray

from spinal_repro.data.splits import (
    Split,
    content_hash,
    fingerprints,
    make_split,
    num_shared,
    stratified,
    subset,
)


def uneven_labels(seed: int = 0, classes: int = 10) -> NDArray[np.int64]:
    """Labels of classes with between 1 and 400 images, shuffled."""
    random = np.random.default_rng(seed)
    sizes = np.concatenate([[1, 2, 3], random.integers(4, 400, classes - 3)])
    return random.permutation(np.repeat(np.arange(classes), sizes)).astype(np.int64)


def class_counts(labels: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(labels[indices], minlength=labels.max() + 1)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.999])
def test_stratified(fraction: float, seed: int) -> None:
    """Every index once, each class with its fraction within an image."""
    labels = uneven_labels(seed)
    first, second = stratified(labels, fraction, seed)
    assert first.dtype == second.dtype == np.int64
    assert np.array_equal(np.sort(np.concatenate([first, second])), np.arange(len(labels)))
    assert (np.diff(first) > 0).all() and (np.diff(second) > 0).all()
    sizes, counts = np.bincount(labels), class_counts(labels, second)
    share = sizes * round(fraction * len(labels)) / len(labels)
    for size, count, exact in zip(sizes, counts, share, strict=True):
        if size > 1:  # both parts get an image, however small the fraction
            assert 1 <= count <= size - 1
        if 1 < count < size - 1:
            assert abs(count - exact) < 1


@pytest.mark.parametrize("fraction", [0.1, 0.2])
@pytest.mark.parametrize(
    "sizes", [[5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], [17], [20], [25]]
)
def test_the_second_part_has_its_fraction_of_the_whole(fraction: float, sizes: list[int]) -> None:
    """Classes as uneven as MNIST's still give exactly 6,000 of 60,000."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    first, second = stratified(labels, fraction, seed=0)
    assert len(first) + len(second) == len(labels)
    assert abs(len(second) - fraction * len(labels)) <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.1, ([1, 1, 2], [0, 1, 1])), (0.9, ([0, 1, 1], [1, 1, 2]))]
)
def test_tiny_classes(fraction: float, expected: tuple[list[int], list[int]]) -> None:
    labels = np.array([0, 1, 1, 2, 2, 2])
    parts = stratified(labels, fraction, seed=0)
    assert tuple(class_counts(labels, part).tolist() for part in parts) == expected


def test_the_seed_decides() -> None:
    labels = uneven_labels()
    indices = np.arange(len(labels))
    for draw in (
        lambda seed: stratified(labels, 0.3, seed)[1],
        lambda seed: subset(labels, indices, 100, seed),
    ):
        assert np.array_equal(draw(1), draw(1))
        assert not np.array_equal(draw(1), draw(2))


def test_every_image_of_a_class_is_chosen_equally_often() -> None:
    labels, draws = np.repeat([0, 1], [8, 4]), 2000
    chosen = np.concatenate([stratified(labels, 0.25, seed)[1] for seed in range(draws)])
    counts = np.bincount(chosen, minlength=12)
    assert (np.abs(counts - draws / 4) < 5 * np.sqrt(draws * 0.25 * 0.75)).all()


@pytest.mark.parametrize("limit", [1, 3, 26, 333, 10_000, None])
@pytest.mark.parametrize("seed", range(2))
def test_subset_keeps_the_limit_and_the_proportions(limit: int | None, seed: int) -> None:
    labels = uneven_labels(seed)
    indices = np.random.default_rng(seed).permutation(len(labels))[: len(labels) * 3 // 4]
    indices = np.sort(indices).astype(np.int64)
    kept = subset(labels, indices, limit, seed)
    assert kept.dtype == np.int64
    assert len(kept) == min(limit or len(indices), len(indices))
    assert np.isin(kept, indices).all() and (np.diff(kept) > 0).all()
    share = class_counts(labels, indices) * (len(kept) / len(indices))
    assert (np.abs(class_counts(labels, kept) - share) < 1).all()


def test_held_out_split() -> None:
    train_labels, test_labels = uneven_labels(0), uneven_labels(1)
    split = make_split(train_labels, test_labels, val_fraction=0.1, seed=0)
    first, second = stratified(train_labels, 0.1, seed=0)
    assert np.array_equal(split.train, first) and np.array_equal(split.val, second)
    assert np.array_equal(split.test, np.arange(len(test_labels)))
    assert split.sizes() == {"train": len(first), "val": len(second), "test": len(test_labels)}


@pytest.mark.parametrize("val_fraction", [0.0, 0.1])
def test_limited_split(val_fraction: float) -> None:
    train_labels, test_labels = uneven_labels(0, 30), uneven_labels(1, 30)
    whole = make_split(train_labels, test_labels, val_fraction=val_fraction, seed=0)
    split = make_split(train_labels, test_labels, val_fraction=val_fraction, seed=0, limit=101)
    assert split.sizes() == {"train": 101, "val": 101 if val_fraction else 0, "test": 101}
    for part in ("train", "val", "test"):
        assert np.isin(getattr(split, part), getattr(whole, part)).all()


def split_of(train: list[int], val: list[int], test: list[int]) -> Split:
    return Split(*(np.array(part, dtype=np.int64) for part in (train, val, test)))


@pytest.mark.parametrize(
    "parts",
    [
        ([0, 1, 3], [4, 5], [0, 1]),  # one image fewer
        ([0, 1, 2, 6], [4, 5], [0, 1]),  # another image
        ([0, 1, 2, 3], [4, 6], [0, 1]),
        ([0, 1, 2, 3], [4, 5], [0, 2]),
        ([0, 1, 2, 3], [4, 5], []),
        ([0, 1, 3, 2], [4, 5], [0, 1]),  # another order
        ([0, 1, 2], [3, 4, 5], [0, 1]),  # the same images in other parts
        ([4, 5], [0, 1, 2, 3], [0, 1]),
    ],
)
def test_hash_changes_with_any_change(parts: tuple[list[int], list[int], list[int]]) -> None:
    base = split_of([0, 1, 2, 3], [4, 5], [0, 1])
    assert base.hash == split_of([0, 1, 2, 3], [4, 5], [0, 1]).hash
    assert split_of(*parts).hash != base.hash


def test_parts_that_overlap_are_refused() -> None:
    for parts in (([0, 1, 2], [2, 3], [0]), ([0, 1, 1], [2, 3], [0]), ([0, 1], [2, 3], [5, 5])):
        with pytest.raises(AssertionError):
            split_of(*parts)


def test_content_hash_changes_with_any_change() -> None:
    images = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    labels = np.array([0, 1])
    base = content_hash(images, labels)
    assert base == content_hash(np.asfortranarray(images), labels), "memory layout must not count"
    changed = []
    for place in np.ndindex(images.shape):
        other = images.copy()
        other[place] ^= 1
        changed.append(content_hash(other, labels))
    changed += [
        content_hash(images, np.array([0, 2])),
        content_hash(images[::-1], labels),
        content_hash(images.reshape(2, 9), labels),
        content_hash(images.astype(np.int8), labels),
        content_hash(labels, images),
        content_hash(images),
        content_hash(images, labels, labels[:0]),
    ]
    assert len({base, *changed}) == len(changed) + 1


def shared(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> int:
    return num_shared(fingerprints(images), fingerprints(others))


def test_planted_duplicates_are_counted() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 28, 28), dtype=np.uint8)
    train, test = images[:20], images[20:].copy()
    assert shared(train, test) == 0
    test[[3, 4, 11]] = train[[7, 0, 7]]
    assert shared(train, test) == 3
    assert shared(train, train[::-1]) == 20
    assert shared(train[7:8], test) == 2  # counted in the second argument
    assert shared(test, train[7:8]) == 1


def test_one_changed_bit_anywhere_makes_another_image() -> None:
    bits = np.arange(784 * 8)
    flipped = np.zeros((len(bits), 784), np.uint8)
    flipped[bits, bits // 8] ^= (1 << (bits % 8)).astype(np.uint8)
    assert len({*fingerprints(np.zeros((1, 784), np.uint8)), *fingerprints(flipped)}) == 6273
