"""Splits: index arrays, drawn from a seed and identified by their hash."""

import hashlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinal_repro.errors import UserError

Indices = NDArray[np.int64]


def stratified(labels: NDArray[np.int64], fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Split indices so that the second part has a given fraction of all and of each class.

    The second part has ``round(fraction * N)`` of the N images, each class giving its share rounded
    down or up. A class of two or more images gives at least one to each part, though the total
    may then differ. The indices are sorted, and the same with every version of NumPy.
    """
    everything = np.arange(len(labels), dtype=np.int64)
    _, sizes = np.unique(labels, return_counts=True)
    counts = _apportion(sizes, round(fraction * len(labels)))
    counts = np.where(sizes > 1, np.clip(counts, 1, sizes - 1), counts)
    chosen = _draw(labels, everything, counts, seed)
    return np.setdiff1d(everything, chosen), chosen


def hold_out(images: Any, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Split images as `stratified`; if they have groups, each group is in one part."""
    labels = images.labels.numpy()
    if images.groups is None:
        return stratified(labels, fraction, seed)
    if (groups := len(images.groups.unique())) < 2:
        raise UserError("images of a single group cannot be divided; check the column group")
    drawn = k_folds(labels, images.groups.numpy(), min(max(2, round(1 / fraction)), groups), seed)
    chosen = min(filter(len, drawn), key=lambda fold: abs(len(fold) - fraction * len(labels)))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def k_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64] | None, folds: int, seed: int
) -> list[Indices]:
    """Divide all images into folds, stratified by class; each group is in one fold."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer images than folds
        try:
            drawn = kind(folds, shuffle=True, random_state=seed).split(labels, labels, groups)
            return [test for _, test in drawn]
        except ValueError as error:
            raise UserError(f"the images cannot be divided into {folds} folds: {error}") from error


def subset(labels: NDArray[np.int64], indices: Indices, limit: int | None, seed: int) -> Indices:
    """Draw ``limit`` of the given indices, or all if there are fewer or it is None.

    Classes are drawn in proportion, rounded down or up; a small class may get no image.
    """
    if limit is None or len(indices) <= limit:
        return indices
    _, sizes = np.unique(labels[indices], return_counts=True)
    return _draw(labels, indices, _apportion(sizes, limit), seed)


def _apportion(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Divide ``total`` in proportion to ``sizes``: rounded down, largest remainders up."""
    counts, remainders = np.divmod(sizes * total, sizes.sum())
    largest = np.argsort(-remainders, kind="stable")[: total - int(counts.sum())]
    counts[largest] += 1
    return counts


def _draw(
    labels: NDArray[np.int64], indices: Indices, counts: NDArray[np.int64], seed: int
) -> Indices:
    """Draw ``counts`` indices of each class, sorted."""
    random = np.random.RandomState(seed)  # the legacy generator's stream is frozen
    values = np.unique(labels[indices])
    drawn = [
        random.permutation(indices[labels[indices] == value])[:count]
        for value, count in zip(values, counts, strict=True)
    ]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


@dataclass(frozen=True)
class Split:
    """Indices into the published parts.

    ``val`` indexes the train part, or the published validation part if ``published_val``; it is
    empty if the protocol has no validation part. If ``pooled``, all index the images of all parts.
    """

    train: Indices
    val: Indices
    test: Indices
    published_val: bool = False
    pooled: bool = False

    @property
    def hash(self) -> str:
        """SHA-256 of the three index arrays."""
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.test):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part.astype("<i8").tobytes())
        return digest.hexdigest()
