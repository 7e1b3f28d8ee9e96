"""The measured rates in docs/statistics.md, in percent; ``-s`` prints what was measured."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from spinal_repro.records.statistics import mean_interval, pairs_needed, sign_flip_test

REPEATS, RESAMPLES = 1000, 1000
Ends = tuple[np.ndarray, np.ndarray]


def drawn(n: int, skewed: bool, repeats: int = REPEATS) -> np.ndarray:
    """Differences ``[repeats, n]`` with mean 0 and SD 1, normal or exponential."""
    generator = np.random.default_rng(19)
    if skewed:
        return generator.exponential(1, (repeats, n)) - 1
    return generator.normal(0, 1, (repeats, n))


def t_interval(values: np.ndarray) -> Ends:
    freedom = values.shape[1] - 1
    return stats.t.interval(0.95, freedom, values.mean(1), stats.sem(values, axis=1))


def check(name: str, found: np.ndarray, percent: float) -> None:
    """Compare a measured rate with the documented one, within four standard errors."""
    share = percent / 100
    print(f"{name}: {100 * found.mean():.1f} %, documented {percent} %")
    error = max(0.005, math.sqrt(share * (1 - share) / len(found)))
    assert found.mean() == pytest.approx(share, abs=4 * error)


@pytest.mark.parametrize(
    ("skewed", "n", "by_bootstrap", "by_t", "by_both"),
    [
        (False, 6, 14, 5, 3),
        (False, 12, 10, 5, 5),
        (False, 50, 6, 5, None),
        (True, 6, 17, 11, 6),
        (True, 12, 12, 10, 9),
        (True, 50, 7, 6, None),
    ],
)
def test_differences_that_are_wrongly_decided(skewed, n, by_bootstrap, by_t, by_both):
    values, about = drawn(n, skewed), f"n {n}, skewed {skewed}"
    bootstrap = stats.bootstrap(
        (values,), np.mean, axis=1, n_resamples=RESAMPLES, method="BCa", random_state=1
    )
    low, high = bootstrap.confidence_interval
    check(f"BCa, {about}", (low > 0) | (high < 0), by_bootstrap)
    low, high = t_interval(values)
    outside = (low > 0) | (high < 0)
    check(f"t, {about}", outside, by_t)
    assert mean_interval(values[0].tolist()) == pytest.approx((low[0], high[0]))
    if by_both is not None:
        signs = np.array(list(itertools.product((-1, 1), repeat=n)))
        least = np.abs(values.sum(1, keepdims=True)) - 1e-9
        p = np.mean(np.abs(values @ signs.T) >= least, axis=1)
        check(f"t and sign flips, {about}", outside & (p < 0.05), by_both)
        assert sign_flip_test(tuple(values[0].tolist())) == pytest.approx(p[0])


@pytest.mark.parametrize(("comparisons", "expected"), [(1, [34, 10, 7]), (10, [58, 18, 10])])
def test_pairs_that_are_needed(comparisons, expected):
    assert [pairs_needed(size, 1.0, comparisons) for size in (0.5, 1.0, 1.5)] == expected


@pytest.mark.parametrize(
    ("n", "margin", "if_equal"),
    [(6, 0.5, 1), (6, 1, 22), (6, 2, 94), (12, 0.5, 3), (12, 1, 77), (12, 2, 100)],
)
def test_rows_that_are_called_reproduced(n, margin, if_equal):
    """Where the true mean is the published one, and where it is off by the margin, in SDs."""
    for off, percent in ((0, if_equal), (margin, 2.5)):
        low, high = t_interval(drawn(n, skewed=False, repeats=10_000) + off)
        found = (low >= -margin) & (high <= margin)
        if off:
            assert found.mean() < 0.03
        else:
            check(f"n {n}, margin {margin} SD", found, percent)
