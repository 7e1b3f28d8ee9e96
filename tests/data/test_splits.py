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


# stratified


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.999])
def test_two_parts_hold_every_index_once(fraction: float, seed: int) -> None:
    labels = uneven_labels(seed)
    first, second = stratified(labels, fraction, seed)
    assert first.dtype == second.dtype == np.int64
    assert np.array_equal(np.sort(np.concatenate([first, second])), np.arange(len(labels)))
    assert (np.diff(first) > 0).all() and (np.diff(second) > 0).all()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.999])
def test_each_class_gives_its_fraction_within_an_image(fraction: float, seed: int) -> None:
    labels = uneven_labels(seed)
    _, second = stratified(labels, fraction, seed)
    sizes, counts = np.bincount(labels), class_counts(labels, second)
    share = sizes * round(fraction * len(labels)) / len(labels)
    for size, count, exact in zip(sizes, counts, share, strict=True):
        if size > 1:  # both parts get one image, however small the fraction
            assert 1 <= count <= size - 1
        if 1 < count < size - 1:
            assert abs(count - exact) < 1


@pytest.mark.parametrize("fraction", [0.1, 0.2])
def test_the_second_part_has_its_fraction_of_the_whole(fraction: float) -> None:
    """Classes as uneven as MNIST's still give exactly 6,000 of 60,000."""
    sizes = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    labels = np.repeat(np.arange(10), sizes)
    first, second = stratified(labels, fraction, seed=0)
    assert len(second) == round(fraction * 60000) and len(first) + len(second) == 60000


@pytest.mark.parametrize("size", [17, 20, 25])
def test_the_fraction_of_the_whole_is_rounded_to_the_nearest_image(size: int) -> None:
    _, second = stratified(np.zeros(size, dtype=np.int64), 0.1, seed=0)
    assert abs(len(second) - 0.1 * size) <= 0.5 + 1e-9


def test_tiny_classes() -> None:
    labels = np.array([0, 1, 1, 2, 2, 2])
    first, second = stratified(labels, 0.1, seed=0)
    assert class_counts(labels, first).tolist() == [1, 1, 2]
    assert class_counts(labels, second).tolist() == [0, 1, 1]
    first, second = stratified(labels, 0.9, seed=0)
    assert class_counts(labels, first).tolist() == [0, 1, 1]
    assert class_counts(labels, second).tolist() == [1, 1, 2]


def test_same_seed_same_split_and_another_seed_another() -> None:
    labels = uneven_labels()
    once, again, other = (stratified(labels, 0.3, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    assert not np.array_equal(once[1], other[1])


def test_choice_within_a_class_is_even() -> None:
    """Over many seeds each image of a class is chosen equally often: none is favoured."""
    labels, draws = np.repeat([0, 1], [8, 4]), 2000
    chosen = np.concatenate([stratified(labels, 0.25, seed)[1] for seed in range(draws)])
    counts = np.bincount(chosen, minlength=12)
    assert (np.abs(counts - draws / 4) < 5 * np.sqrt(draws * 0.25 * 0.75)).all()


# subset


@pytest.mark.parametrize("limit", [1, 26, 333, 1000])
@pytest.mark.parametrize("seed", range(2))
def test_subset_keeps_the_limit_and_the_proportions(limit: int, seed: int) -> None:
    labels = uneven_labels(seed)
    indices = np.random.default_rng(seed).permutation(len(labels))[: len(labels) * 3 // 4]
    indices = np.sort(indices).astype(np.int64)
    kept = subset(labels, indices, limit, seed)
    assert kept.dtype == np.int64
    assert len(kept) == min(limit, len(indices))
    assert np.isin(kept, indices).all()
    assert (np.diff(kept) > 0).all()
    share = class_counts(labels, indices) * (len(kept) / len(indices))
    assert (np.abs(class_counts(labels, kept) - share) < 1).all()


def test_subset_of_even_classes_is_even() -> None:
    labels = np.tile(np.arange(10), 30)
    kept = subset(labels, np.arange(300), 50, seed=0)
    assert class_counts(labels, kept).tolist() == [5] * 10
    for limit in (3, 26):  # fewer images than classes, and shares of 2.6 that all round up
        counts = class_counts(labels, subset(labels, np.arange(300), limit, seed=0))
        assert counts.sum() == limit
        assert set(counts) <= {limit // 10, limit // 10 + 1}


def test_subset_without_a_limit_or_below_it_is_everything() -> None:
    labels, indices = np.zeros(10, dtype=np.int64), np.array([1, 5, 7])
    for limit in (None, 3, 4):
        assert np.array_equal(subset(labels, indices, limit, seed=0), indices)


def test_subset_is_deterministic() -> None:
    labels = uneven_labels()
    indices = np.arange(len(labels))
    once, again, other = (subset(labels, indices, 100, seed) for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


# make_split and Split


def test_held_out_split() -> None:
    train_labels, test_labels = uneven_labels(0), uneven_labels(1)
    split = make_split(train_labels, test_labels, val_fraction=0.1, seed=0)
    assert len(np.intersect1d(split.train, split.val)) == 0
    together = np.sort(np.concatenate([split.train, split.val]))
    assert np.array_equal(together, np.arange(len(train_labels)))
    assert np.array_equal(split.test, np.arange(len(test_labels)))
    assert split.sizes() == {
        "train": len(split.train),
        "val": len(split.val),
        "test": len(test_labels),
    }
    first, second = stratified(train_labels, 0.1, seed=0)
    assert np.array_equal(split.train, first) and np.array_equal(split.val, second)


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
        ([0, 1, 2], [3, 4, 5], [0, 1]),  # the same images, the border moved
        ([0, 1, 2, 3], [4, 5, 0 + 7], [1]),
        ([4, 5], [0, 1, 2, 3], [0, 1]),  # parts exchanged
    ],
)
def test_hash_changes_with_any_change(parts: tuple[list[int], list[int], list[int]]) -> None:
    base = split_of([0, 1, 2, 3], [4, 5], [0, 1])
    assert base.hash == split_of([0, 1, 2, 3], [4, 5], [0, 1]).hash
    assert len(base.hash) == 64
    assert split_of(*parts).hash != base.hash


def test_hash_of_a_made_split_depends_on_seed_fraction_and_labels_alone() -> None:
    labels = uneven_labels()

    def hash_of(**changes: float) -> str:
        options = {"val_fraction": 0.1, "seed": 0, **changes}
        return make_split(labels, labels, **options).hash  # type: ignore[arg-type]

    assert hash_of() == hash_of()
    others = [
        hash_of(seed=1),
        hash_of(val_fraction=0.2),
        hash_of(val_fraction=0.0),
        hash_of(limit=9),
    ]
    assert len({hash_of(), *others}) == 5


def test_parts_that_overlap_are_refused() -> None:
    with pytest.raises(AssertionError, match="train and val share"):
        split_of([0, 1, 2], [2, 3], [0])
    with pytest.raises(AssertionError, match="an image twice"):
        split_of([0, 1, 1], [2, 3], [0])
    with pytest.raises(AssertionError, match="an image twice"):
        split_of([0, 1], [2, 3], [5, 5])


# content_hash


def test_content_hash_changes_with_any_change() -> None:
    images = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    labels = np.array([0, 1])
    base = content_hash(images, labels)
    assert base == content_hash(images.copy(), labels.copy())
    changed: dict[str, str] = {}
    for place in np.ndindex(images.shape):
        other = images.copy()
        other[place] ^= 1
        changed[f"pixel {place}"] = content_hash(other, labels)
    changed["label"] = content_hash(images, np.array([0, 2]))
    changed["image order"] = content_hash(images[::-1], labels)
    changed["shape"] = content_hash(images.reshape(2, 9), labels)
    changed["image type"] = content_hash(images.astype(np.int8), labels)
    changed["label type"] = content_hash(images, labels.astype(np.uint64))
    changed["argument order"] = content_hash(labels, images)
    changed["no labels"] = content_hash(images)
    changed["an empty array more"] = content_hash(images, labels, labels[:0])
    assert base not in changed.values()
    assert len(set(changed.values())) == len(changed)


def test_content_hash_sees_values_and_not_memory_layout() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6), dtype=np.uint8)
    assert content_hash(np.asfortranarray(images)) == content_hash(images)
    assert content_hash(images[::2]) == content_hash(images[::2].copy())


# num_shared


def random_images(count: int, side: int = 28, seed: int = 0) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 1, side, side), dtype=np.uint8)


def shared(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> int:
    return num_shared(fingerprints(images), fingerprints(others))


@pytest.mark.parametrize("side", [1, 28])
def test_planted_duplicates_are_counted(side: int) -> None:
    images = random_images(40, side)
    if side == 1:  # 40 images of one pixel must be made to differ
        images = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    train, test = images[:20], images[20:].copy()
    assert shared(train, test) == 0
    test[[3, 4, 11]] = train[[7, 0, 7]]
    assert shared(train, test) == 3
    assert shared(train, train[::-1]) == 20
    assert shared(train[7:8], test) == 2  # counted in the second argument
    assert shared(test, train[7:8]) == 1


def test_one_changed_bit_anywhere_makes_another_image() -> None:
    """All 6,272 images that differ from one in a single bit are different from it, and all
    are different from one another: the fingerprint overlooks no pixel and no bit."""
    image = np.zeros(784, np.uint8)
    bits = np.arange(784 * 8)
    flipped = np.tile(image, (len(bits), 1))
    flipped[bits, bits // 8] ^= (1 << (bits % 8)).astype(np.uint8)
    assert shared(image[None], flipped) == 0
    assert shared(flipped, flipped) == len(bits)
    half = len(bits) // 2
    assert shared(flipped[:half], flipped[half:]) == 0
