"""Splits are index arrays: made once from a seed, recorded by hash, proved disjoint."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def stratified(labels: NDArray[np.int64], fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Split indices so that each class gives the same fraction, to the nearest image.

    Args:
        labels: ``[N]`` class of each image.
        fraction: Share of the second part, in (0, 1). A class of two or more images gives at
            least one to each part.
        seed: The same seed gives the same split with every version of NumPy.

    Returns:
        Sorted indices of the first and of the second part; together each index once.
    """
    random = np.random.RandomState(seed)  # noqa: NPY002 (the legacy generator's stream is frozen)
    second: list[Indices] = []
    for value in np.unique(labels):
        members = np.flatnonzero(labels == value)
        count = round(fraction * len(members))
        if len(members) > 1:
            count = min(max(count, 1), len(members) - 1)
        second.append(random.permutation(members)[:count])
    chosen = np.sort(np.concatenate(second)).astype(np.int64)
    rest = np.setdiff1d(np.arange(len(labels), dtype=np.int64), chosen)
    return rest, chosen


def subset(labels: NDArray[np.int64], indices: Indices, limit: int | None, seed: int) -> Indices:
    """At most ``limit`` of the given indices, with the classes in proportion."""
    if limit is None or len(indices) <= limit:
        return indices
    _, kept = stratified(labels[indices], limit / len(indices), seed)
    return indices[kept]


@dataclass(frozen=True)
class Split:
    """Which images of the published train and test parts a run uses for what.

    Attributes:
        train: Indices into the train part.
        val: Indices into the train part; empty where the protocol holds nothing out.
        test: Indices into the test part.
    """

    train: Indices
    val: Indices
    test: Indices

    def __post_init__(self) -> None:
        assert len(np.intersect1d(self.train, self.val)) == 0, "train and val share images"
        for part in (self.train, self.val, self.test):
            assert len(np.unique(part)) == len(part), "an image stands twice in a split"

    @property
    def hash(self) -> str:
        """SHA-256 over the three index arrays."""
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.test):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part.astype("<i8").tobytes())
        return digest.hexdigest()

    def sizes(self) -> dict[str, int]:
        """Number of images of each part."""
        return {"train": len(self.train), "val": len(self.val), "test": len(self.test)}


def make_split(
    train_labels: NDArray[np.int64],
    test_labels: NDArray[np.int64],
    *,
    val_fraction: float,
    seed: int,
    limit: int | None = None,
) -> Split:
    """The split of one run.

    Args:
        train_labels: ``[N]`` labels of the published train part.
        test_labels: ``[M]`` labels of the published test part.
        val_fraction: Share of train held out, stratified; 0 holds nothing out.
        seed: Seed of the split, independent of the run's seed.
        limit: At most this many images in each of train, val and test.
    """
    everything = np.arange(len(train_labels), dtype=np.int64)
    if val_fraction > 0:
        train, val = stratified(train_labels, val_fraction, seed)
    else:
        train, val = everything, everything[:0]
    test = np.arange(len(test_labels), dtype=np.int64)
    return Split(
        subset(train_labels, train, limit, seed),
        subset(train_labels, val, limit, seed),
        subset(test_labels, test, limit, seed),
    )


def content_hash(*arrays: NDArray[np.generic]) -> str:
    """SHA-256 over shapes, types and values: the version of a data set that a run read."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def num_shared(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> int:
    """How many of ``others`` also stand in ``images``, byte for byte."""
    return int(np.isin(_fingerprints(others), _fingerprints(images)).sum())


def _fingerprints(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A 64-bit fingerprint of each image: a random linear form modulo 2**64."""
    flat = images.reshape(len(images), int(np.prod(images.shape[1:])))
    padded = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 8)))
    words = np.ascontiguousarray(padded).view(np.uint64)
    factors = np.random.RandomState(0).randint(  # noqa: NPY002
        1, 2**63 - 1, size=words.shape[1], dtype=np.int64
    )
    mixed = words * (factors.astype(np.uint64) | np.uint64(1))
    mixed ^= mixed >> np.uint64(31)  # so that high bytes count too
    return np.asarray(mixed.sum(axis=1, dtype=np.uint64))
