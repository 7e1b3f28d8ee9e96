"""Intervals and tests for measured accuracies; the tests validate each by simulation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
EXACT_PAIRS = 20  # largest number of pairs with an exact test
FLIPS = 20_000  # random assignments for more pairs


def binomial_interval(correct: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval, in [0, 1], of an accuracy: for a finite test set, not between seeds."""
    assert 0 <= correct <= count and count > 0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = correct / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = share * (1 - share) / count + z * z / (4 * count * count)
    half = z * math.sqrt(spread) / (1 + z * z / count)
    low = centre - half if correct > 0 else 0.0  # exact at 0 and 1 in spite of rounding
    high = centre + half if correct < count else 1.0
    return max(0.0, low), min(1.0, high)


def mean(values: Sequence[float]) -> float:
    """Mean; exact for equal values."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1) of two values or more."""
    assert len(values) > 1
    if min(values) == max(values):
        return 0.0  # exact in spite of rounding in the mean
    centre = mean(values)
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval of the mean of two values or more."""
    half = _t(len(values) - 1, level) * deviation(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def prediction_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Interval of one new run, ``mean -+ t * SD * sqrt(1 + 1/n)``, for a published single run.

    The interval of the mean would shrink to nothing with the number of runs.
    """
    half = _t(len(values) - 1, level) * deviation(values) * math.sqrt(1 + 1 / len(values))
    return mean(values) - half, mean(values) + half


def _t(freedom: int, level: float) -> float:
    """Student's t; SciPy's `stdtrit` has only 8 to 10 digits before 1.17."""
    from scipy.special import betaincinv  # late: no run needs it, and importing it takes a while

    share = float(betaincinv(freedom / 2, 0.5, 1 - level))  # freedom / (freedom + t^2)
    return math.sqrt(freedom * (1 - share) / share)


def sign_flip_test(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of paired differences: share of sign choices with a sum as far from 0.

    Of all 2^n choices up to `EXACT_PAIRS` pairs, else of `FLIPS` drawn ones and the observed one.
    """
    d = np.asarray(differences, dtype=np.float64)
    observed = abs(d.sum())
    least = observed - 1e-9 * np.abs(d).sum()  # tolerates rounding in equal sums
    if len(d) <= EXACT_PAIRS:
        half = len(d) // 2
        sums = np.add.outer(_signed_sums(d[:half]), _signed_sums(d[half:]))
        return float(np.mean(np.abs(sums) >= least))
    bits = np.random.default_rng(seed).integers(0, 256, (FLIPS, -(-len(d) // 8)), np.uint8)
    flipped = np.unpackbits(bits, axis=1, count=len(d))
    hits = int((np.abs(d.sum() - 2 * (flipped @ d)) >= least).sum())
    return (hits + 1) / (FLIPS + 1)


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """Sums of all sign choices, ``[2^n]``."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def mcnemar_test(only_first: int, only_second: int) -> float:
    """P-value of the exact two-sided McNemar test; images that one classifier alone has right."""
    from scipy.special import bdtr

    total = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), total, 0.5)))


@dataclass(frozen=True)
class Paired:
    """Differences ``second - first``, one per seed; no interval and p-value for a single pair."""

    differences: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None  # t interval of the mean
    p: float | None  # of the sign-flip test


def paired(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> Paired:
    """Compare two groups of runs, paired by seed."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    several = len(differences) > 1
    return Paired(
        tuple(differences),
        mean(differences),
        mean_interval(differences, level) if several else None,
        sign_flip_test(differences) if several else None,
    )
