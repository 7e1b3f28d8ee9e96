"""Intervals cover and tests err as often as they say: simulated, within four standard errors."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from spinal_repro.records.statistics import (
    deviation,
    mcnemar_test,
    mean_interval,
    prediction_interval,
    sign_flip_test,
)
from spinal_repro.results.verdicts import HIGHER, LOWER, judge

REPEATS = 3000


def tolerance(share: float) -> float:
    return 4 * math.sqrt(share * (1 - share) / REPEATS)


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(20200707)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_intervals_hold_the_mean_and_a_new_run_as_often_as_they_say(generator, n):
    held = {"mean": 0, "new run": 0}
    for *values, new in generator.normal(98.2, 0.1, (REPEATS, n + 1)).tolist():
        low, high = mean_interval(values)
        held["mean"] += low <= 98.2 <= high
        low, high = prediction_interval(values)
        held["new run"] += low <= new <= high
    for count in held.values():
        assert count / REPEATS == pytest.approx(0.95, abs=tolerance(0.95))


def test_equal_values_have_no_spread():
    values = [98.1] * 7  # their mean, naively summed, differs from them
    assert deviation(values) == 0
    assert mean_interval(values) == prediction_interval(values) == (98.1, 98.1)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_sign_flips_are_those_tried_one_by_one(generator, n):
    d = generator.normal(0.3, 1, n)
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=n)]
    expected = np.mean(np.array(sums) >= abs(d.sum()) - 1e-12)
    assert sign_flip_test(d.tolist()) == pytest.approx(expected)


def test_many_pairs_are_drawn_from_a_seed(generator):
    d = generator.normal(0.25, 1, 30).tolist()
    p = sign_flip_test(d)
    assert p == sign_flip_test(d) != sign_flip_test(d, seed=1)
    z = sum(d) / math.sqrt(sum(v * v for v in d))  # for many pairs the sums are about normal
    assert p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.015)
    assert sign_flip_test([1.0] * 30) == pytest.approx(1 / 20_001)


@pytest.mark.parametrize("b, c", [(0, 0), (0, 1), (3, 3), (2, 9), (40, 70), (500, 500)])
def test_mcnemar_is_the_binomial_test(b, c):
    expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_test(b, c) == mcnemar_test(c, b) == pytest.approx(expected)


def test_a_published_run_of_the_same_kind_is_rarely_called_different(generator):
    words = [
        judge(values, published, margin=1.0)
        for *values, published in generator.normal(98.2, 0.1, (REPEATS, 6)).tolist()
    ]
    for word in (HIGHER, LOWER):
        assert words.count(word) / REPEATS == pytest.approx(0.025, abs=tolerance(0.025))
