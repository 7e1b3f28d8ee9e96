"""Intervals, tests and decisions for measured accuracies, each tested by simulation or equation.

The rules and their sources: docs/statistics.md.
"""

import bisect
import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean

import numpy as np

LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
mean = fmean  # exact for equal values
MIN_PAIRS = 6  # the exact test of 5 pairs cannot fall below 2 / 2^5 = 0.0625
FLIPS = 20_000  # sign choices: all of them up to 14 pairs, so many drawn ones for more
MOST_FLIPPED = 100  # pairs; of more, the sum is taken as normal
MOST_PAIRS = 1000  # above, "more than"


def binomial_interval(correct: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval, in [0, 1], of an accuracy: for a finite test set, not between seeds."""
    assert 0 <= correct <= count and count > 0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = correct / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = share * (1 - share) / count + z * z / (4 * count * count)
    half = z * math.sqrt(spread) / (1 + z * z / count)
    # exact at 0 and 1 in spite of rounding
    return centre - half if correct > 0 else 0.0, centre + half if correct < count else 1.0


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1) of two values or more."""
    assert len(values) > 1
    return 0.0 if min(values) == max(values) else float(np.std(values, ddof=1))


def mean_interval(values: Sequence[float], new: float = 0) -> tuple[float, float] | None:
    """Student's t interval of a mean, ``mean -+ t * SD * sqrt(new + 1/n)``.

    With ``new=1``, the interval of one new run; with test images per training image, that of the
    folds of a cross-validation (Nadeau and Bengio 2003). None for fewer than 3 values or equal
    ones.
    """
    if len(values) < 3 or min(values) == max(values):
        return None
    from scipy.special import stdtrit  # late, as below: training does not need it

    t = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2))
    half = t * deviation(values) * math.sqrt(new + 1 / len(values))
    return mean(values) - half, mean(values) + half


@functools.cache
def sign_flip_test(differences: tuple[float, ...]) -> float:
    """Two-sided p-value: how often random signs give a sum at least as far from 0."""
    whole = np.rint(np.asarray(differences) * 1e7)  # sums of integers are exact, so are ties
    if len(whole) > MOST_FLIPPED:
        distance = abs(whole.sum()) / max(math.hypot(*whole), 1.0)  # in standard deviations
        return math.erfc(distance / math.sqrt(2))
    from scipy.stats import permutation_test

    found = permutation_test(
        (whole,), np.sum, permutation_type="samples", vectorized=True, n_resamples=FLIPS, rng=0
    )
    return float(found.pvalue)


def corrected_t_test(differences: Sequence[float], overlap: float) -> float | None:
    """Two-sided p-value for folds, see `mean_interval`; None where that has no interval."""
    if len(differences) < 3 or min(differences) == max(differences):
        return None
    from scipy.special import stdtr

    error = deviation(differences) * math.sqrt(overlap + 1 / len(differences))
    return 2 * float(stdtr(len(differences) - 1, -abs(mean(differences)) / error))


def mcnemar_test(only_first: int, only_second: int) -> float:
    """P-value of the exact McNemar test; images that one classifier alone has right."""
    from scipy.special import bdtr

    fewer, total = min(only_first, only_second), only_first + only_second
    return min(1.0, 2 * float(bdtr(fewer, total, 0.5)))


def image_interval(only_first: int, only_second: int, count: int) -> tuple[float, float]:
    """Interval, in points, of the accuracy of the second classifier minus that of the first.

    For a finite test set, not between seeds: Wald's interval of paired proportions with half an
    image added to each of the four counts (Agresti and Min 2005).
    """
    b, c, n = only_first + 0.5, only_second + 0.5, count + 2
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(b + c - (c - b) ** 2 / n) / n
    return 100 * max(-1.0, (c - b) / n - half), 100 * min(1.0, (c - b) / n + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of a family, adjusted for their number (Holm 1979)."""
    ordered = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(1.0, np.maximum.accumulate(ordered))
    return [float(p) for p in adjusted[np.argsort(np.argsort(p_values))]]


def pairs_needed(effect: float, deviation: float, comparisons: int = 1) -> int | None:
    """Pairs that find a mean difference with 80 % power, at a level of 0.05 / ``comparisons``.

    None if there are more than `MOST_PAIRS`.
    """
    from statsmodels.stats.power import TTestPower

    level = ALPHA / comparisons
    least = max(MIN_PAIRS, math.ceil(1 - math.log2(level)))  # for the exact test
    if not effect or not deviation:
        return least if effect else None
    test, size = TTestPower(), abs(effect) / deviation

    def power(n: int) -> float:
        found = float(np.nan_to_num(test.power(size, n, level), nan=1.0))  # NaN near 1
        same_sign = NormalDist().cdf(size) ** n  # the exact test needs it of the least n
        return min(found, same_sign) if 4 / 2**n > level else found

    found = bisect.bisect_left(range(least, MOST_PAIRS + 1), POWER, key=power) + least
    return found if found <= MOST_PAIRS else None


@dataclass(frozen=True)
class Paired:
    """Differences ``second - first``, one per seed, and how they are judged."""

    differences: tuple[float, ...]
    family: int = 1  # number of comparisons that are judged together
    adjusted: float | None = None  # p-value by Holm; None: by Bonferroni, from their number
    overlap: float = 0.0  # test images per training image, of folds that share training images

    @property
    def n(self) -> int:
        return len(self.differences)

    @property
    def mean(self) -> float:
        return mean(self.differences)

    @property
    def interval(self) -> tuple[float, float] | None:
        return mean_interval(self.differences, self.overlap)

    @property
    def p(self) -> float | None:
        """P-value of the sign-flip test, or of folds; None with too few pairs to decide."""
        if self.overlap:
            return corrected_t_test(self.differences, self.overlap)
        return sign_flip_test(self.differences) if self.n >= MIN_PAIRS else None

    @property
    def p_holm(self) -> float | None:
        if self.adjusted is not None or self.p is None:
            return self.adjusted
        return min(1.0, self.p * self.family)

    @property
    def higher(self) -> float:
        """Share of the pairs in which the second is higher; ties count half."""
        return mean([(d > 0) + (d == 0) / 2 for d in self.differences])

    def side(self, threshold: float = 0.0) -> int:
        """1 or -1 if the mean is decided to be above or below the threshold, else 0."""
        shifted = self
        if threshold:  # others may be tested against it too, so each p counts for all (Bonferroni)
            shifted = replace(paired([threshold] * self.n, self.differences), family=self.family)
        low, high = shifted.interval or (shifted.mean, shifted.mean)  # equal differences
        if shifted.p_holm is None or shifted.p_holm >= ALPHA or low <= 0 <= high:
            return 0
        return 1 if low > 0 else -1

    def missing(self, claimed: float | None = None) -> str:
        """``needs about 9 pairs, has 5``: to find the claimed difference, else the measured one."""
        if self.overlap:
            few = "needs 3 folds or more"
            return few if self.n < 3 else "the folds cannot resolve so small a difference"
        spread = deviation(self.differences) if self.n > 2 else 0.0
        needed = pairs_needed(claimed or self.mean, spread, self.family)
        if needed is None:
            return f"needs more than {MOST_PAIRS:,} pairs, has {self.n}"
        if needed > self.n or not claimed:
            about = "at least" if self.n < 3 else "about"
            return f"needs {about} {max(needed, self.n + 1)} pairs, has {self.n}"
        return f"{self.n} pairs are enough to find the claimed {abs(claimed):g}"


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare two groups of runs, paired by seed; equal differences are equal in every bit."""
    return Paired(tuple(round(b - a, 9) for a, b in zip(first, second, strict=True)))


def as_family(comparisons: Iterable[Paired]) -> list[Paired]:
    """Adjust the p-value of each comparison for the others; too few pairs count as 1."""
    found = list(comparisons)
    adjusted = holm([1.0 if item.p is None else item.p for item in found])
    return [
        replace(item, family=len(found), adjusted=None if item.p is None else p)
        for item, p in zip(found, adjusted, strict=True)
    ]
