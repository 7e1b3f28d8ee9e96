"""Wilson's interval: its defining equation and its coverage."""

import math
from statistics import NormalDist

import pytest

from spinal_repro.records.statistics import binomial_interval

COUNTS = [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (50, 100), (993, 1000), (9_950, 10_000)]


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("correct, count", COUNTS)
def test_bounds_are_the_shares_just_not_rejected(correct, count, level):
    """A bound p solves |share - p| = z sqrt(p (1 - p) / n), the score test's edge."""
    low, high = binomial_interval(correct, count, level)
    share, z = correct / count, NormalDist().inv_cdf(0.5 + level / 2)
    assert 0 <= low <= share <= high <= 1 and low < high
    for bound in (low, high):
        distance = z * math.sqrt(max(bound * (1 - bound), 0) / count)
        assert abs(share - bound) == pytest.approx(distance, abs=1e-9)


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
def test_coverage_of_usual_accuracies(count, tolerance):
    for p in (0.5, 0.7, 0.9, 0.95, 0.99):
        assert coverage(count, p, 0.95) == pytest.approx(0.95, abs=tolerance), p


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_mean_coverage_is_the_level(level):
    """Single shares scatter, because outcomes are whole numbers; their mean does not."""
    found = [coverage(100, p / 100, level) for p in range(1, 100)]
    assert sum(found) / len(found) == pytest.approx(level, abs=0.008)
