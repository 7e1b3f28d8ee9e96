"""Wilson's interval solves its defining equation."""

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
