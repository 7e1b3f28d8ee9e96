"""Wilson's interval: its defining equation, its edges and its coverage."""

import math
from statistics import NormalDist

import pytest

from spinal_repro.records.statistics import binomial_interval

COUNTS = [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (50, 100), (993, 1000), (9_950, 10_000)]


def z_of(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("correct, count", COUNTS)
def test_bounds_are_the_shares_just_not_rejected(correct, count, level):
    """A bound p solves |share - p| = z sqrt(p (1 - p) / n), the score test's edge."""
    low, high = binomial_interval(correct, count, level)
    share = correct / count
    assert 0 <= low <= share <= high <= 1
    for bound in (low, high):
        distance = z_of(level) * math.sqrt(max(bound * (1 - bound), 0) / count)
        assert abs(share - bound) == pytest.approx(distance, abs=1e-9)
    assert high > low


@pytest.mark.parametrize("count", [1, 10, 10_000])
def test_none_and_all_right(count):
    z2 = z_of(0.95) ** 2
    low, high = binomial_interval(0, count)
    assert low == 0
    assert high == pytest.approx(z2 / (count + z2))
    low, high = binomial_interval(count, count)
    assert low == pytest.approx(count / (count + z2))
    assert high == 1


@pytest.mark.parametrize("correct, count", COUNTS)
def test_wrong_answers_mirror_right_ones(correct, count):
    low, high = binomial_interval(correct, count)
    mirrored = binomial_interval(count - correct, count)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)


def test_more_images_narrow_it_and_more_confidence_widens_it():
    def width(correct: int, count: int, level: float) -> float:
        low, high = binomial_interval(correct, count, level)
        return high - low

    assert width(90, 100, 0.95) > width(900, 1_000, 0.95) > width(9_000, 10_000, 0.95)
    assert width(90, 100, 0.5) < width(90, 100, 0.95) < width(90, 100, 0.99)
    ratio = width(9_000, 10_000, 0.95) / width(900_000, 1_000_000, 0.95)
    assert ratio == pytest.approx(10, rel=0.01)


def coverage(count: int, p: float, level: float) -> float:
    """Exact chance that the interval holds p: binomial terms of the outcomes where it does."""
    log_p, log_q = math.log(p), math.log(1 - p)
    total = 0.0
    for k in range(count + 1):
        low, high = binomial_interval(k, count, level)
        if low <= p <= high:
            log_choose = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
            total += math.exp(log_choose + k * log_p + (count - k) * log_q)
    return total


@pytest.mark.parametrize("count, tolerance", [(20, 0.04), (200, 0.02), (2_000, 0.01)])
def test_coverage_where_accuracies_lie(count, tolerance):
    for p in (0.5, 0.7, 0.9, 0.95, 0.99):
        assert coverage(count, p, 0.95) == pytest.approx(0.95, abs=tolerance), p


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("count", [20, 200])
def test_mean_coverage_is_the_level(count, level):
    """Single shares scatter, because outcomes are whole numbers; their mean does not."""
    found = [coverage(count, p / 100, level) for p in range(1, 100)]
    assert sum(found) / len(found) == pytest.approx(level, abs=0.008)


@pytest.mark.parametrize("correct, count", [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_our_own_mistake(correct, count):
    with pytest.raises(AssertionError):
        binomial_interval(correct, count)
