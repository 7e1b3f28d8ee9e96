"""Intervals for measured accuracies."""

import math
from statistics import NormalDist


def binomial_interval(correct: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for the share of right answers.

    It covers the uncertainty from a finite test set alone, not that between seeds.

    Args:
        correct: Right answers.
        count: All answers, at least 1.
        level: Confidence level in (0, 1).

    Returns:
        Lower and upper bound, in [0, 1].
    """
    assert 0 <= correct <= count and count > 0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = correct / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = share * (1 - share) / count + z * z / (4 * count * count)
    half = z * math.sqrt(spread) / (1 + z * z / count)
    low = centre - half if correct > 0 else 0.0  # exact at the edges, where rounding would not be
    high = centre + half if correct < count else 1.0
    return max(0.0, low), min(1.0, high)
