"""Intervals cover and verdicts err as often as they say: simulated, within four standard errors."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from spinal_repro.records import statistics
from spinal_repro.records.statistics import (
    MIN_PAIRS,
    MOST_PAIRS,
    Paired,
    as_family,
    deviation,
    holm,
    image_interval,
    mcnemar_test,
    mean_interval,
    pairs_needed,
    sign_flip_test,
)
from spinal_repro.results.rules.common import Judgement, Verdict, all_of, by_side
from spinal_repro.results.verdicts import BELOW, HIGHER, LOWER, REPRODUCED, Margin, judge

REPEATS = 3000
FAMILIES = 300


def tolerance(share: float, repeats: int = REPEATS) -> float:
    return 4 * math.sqrt(share * (1 - share) / repeats)


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(20200707)


@pytest.mark.parametrize("n", [3, 6, 20])
def test_intervals_hold_the_mean_and_a_new_run_as_often_as_they_say(generator, n):
    held = {"mean": 0, "new run": 0}
    for *values, new in generator.normal(98.2, 0.1, (REPEATS, n + 1)).tolist():
        low, high = mean_interval(values)
        held["mean"] += low <= 98.2 <= high
        low, high = mean_interval(values, new=1)
        held["new run"] += low <= new <= high
    for count in held.values():
        assert count / REPEATS == pytest.approx(0.95, abs=tolerance(0.95))


def test_no_interval_has_zero_width():
    values = [98.1] * 7  # their mean, naively summed, differs from them
    assert deviation(values) == 0
    for few in (values, [98.1, 98.2], [98.1]):
        assert mean_interval(few) is mean_interval(few, new=1) is None


@pytest.mark.parametrize("n", [2, 3, 6, 9])
def test_sign_flips_are_those_tried_one_by_one(generator, n):
    for d in (generator.normal(0.3, 1, n), generator.integers(-3, 4, n) / 100):  # ties
        sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=n)]
        expected = np.mean(np.array(sums) >= abs(d.sum()) - 1e-9)
        assert sign_flip_test(tuple(d.tolist())) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "off"), [(30, 0.015), (statistics.MOST_FLIPPED + 1, 1e-6)])
def test_the_sum_of_many_flipped_pairs_is_about_normal(generator, n, off):
    d = generator.normal(0.25, 1, n).tolist()
    z = sum(d) / math.sqrt(sum(v * v for v in d))
    assert sign_flip_test(tuple(d)) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=off)
    assert sign_flip_test((0.0,) * n) == 1
    assert sign_flip_test((1.0,) * n) <= 2 / (statistics.FLIPS + 1)


@pytest.mark.parametrize("b, c", [(0, 0), (0, 1), (3, 3), (2, 9), (40, 70), (500, 500)])
def test_mcnemar_is_the_binomial_test(b, c):
    expected = min(1.0, 2 * stats.binom.cdf(min(b, c), b + c, 0.5))
    assert mcnemar_test(b, c) == mcnemar_test(c, b) == pytest.approx(expected)


@pytest.mark.parametrize("first, second", [(0.02, 0.02), (0.005, 0.03), (0.0, 0.02)])
def test_the_interval_of_images_holds_the_difference_of_two_networks(generator, first, second):
    """``first`` and ``second`` are the shares of images that one network alone gets right."""
    counts = generator.multinomial(500, [first, second, 1 - first - second], REPEATS)
    held = 0
    for b, c, _ in counts.tolist():
        low, high = np.array(image_interval(b, c, 500)) / 100
        held += low <= second - first <= high and low < high
    assert held / REPEATS > 0.92  # approximate: least for few images of one network alone


def test_holm_is_the_one_of_statsmodels(generator):
    for n in (1, 2, 9):
        for p_values in (generator.random(n), generator.integers(1, 4, n) / 100):  # ties
            expected = multipletests(p_values, method="holm")[1]
            assert holm(p_values.tolist()) == pytest.approx(expected.tolist())


def family(generator, comparisons, pairs):
    """Comparisons in which there is no difference; half of the families have ties."""
    draw = generator.normal(0, 1, (comparisons, pairs))
    most = 1 if generator.random() < 0.5 else np.inf
    return as_family(Paired(tuple(d)) for d in draw.clip(-most, most).tolist())


@pytest.mark.parametrize("comparisons, pairs", [(1, 6), (1, 9), (6, 9)])
def test_without_a_difference_tables_and_claims_are_rarely_decided_wrongly(
    generator, comparisons, pairs
):
    """Claims over all comparisons of a table, and over those of two tables."""
    tables = [family(generator, comparisons, pairs) for _ in range(FAMILIES)]
    wrong = sum(any(p.side() for p in found) for found in tables)
    assert 0 < wrong / FAMILIES <= 0.05 + tolerance(0.05, FAMILIES)
    judged = [[Judgement(by_side(p), "", p.n) for p in found] for found in tables]
    both = [a + b for a, b in zip(judged[::2], judged[1::2], strict=True)]
    for claims, share in ((judged, 0.025), (both, 0.05)):
        contradicted = [all_of(parts).verdict for parts in claims].count(Verdict.CONTRADICTED)
        assert contradicted / len(claims) <= share + tolerance(share, len(claims))


def test_fewer_than_six_pairs_decide_nothing():
    assert sign_flip_test((1.0,) * (MIN_PAIRS - 1)) > 0.05 > sign_flip_test((1.0,) * MIN_PAIRS)
    differences = tuple(1 + 0.01 * i for i in range(MIN_PAIRS))
    assert Paired(differences[1:]).side() == 0 and Paired(differences[1:]).p is None
    assert (Paired(differences).side(), Paired(differences).side(2.0)) == (1, -1)
    assert Paired(differences, family=2).side() == 0  # 2 / 2^6 is not below 0.05 / 2
    after = Paired(differences, 2, adjusted=2 / 2**MIN_PAIRS)  # Holm: a smaller p is decided
    assert (after.side(), after.side(2.0)) == (1, 0)  # but it says nothing about this threshold


@pytest.mark.parametrize("size, comparisons", [(1.5, 1), (1.0, 1), (2.0, 8)])
def test_as_many_pairs_as_needed_find_the_difference_in_80_percent(generator, size, comparisons):
    n = pairs_needed(size * 0.1, 0.1, comparisons)
    draws = generator.normal(size * 0.1, 0.1, (FAMILIES, n)).tolist()
    found = sum(Paired(tuple(d), comparisons).side() > 0 for d in draws)
    # the sign-flip test is a little weaker than the t test that the number is computed for
    assert 0.74 <= found / FAMILIES <= 0.95


def test_pairs_needed_at_the_edges():
    assert pairs_needed(1.0, 0.0) == pairs_needed(100.0, 0.1) == MIN_PAIRS
    assert pairs_needed(1.0, 0.0, 20) == 10  # 2 / 2^10 is below 0.05 / 20, 2 / 2^9 is not
    assert pairs_needed(0.0, 1.0) is None
    assert (
        Paired((0.1, -0.1, 0.2, -0.2)).missing() == f"needs more than {MOST_PAIRS:,} pairs, has 4"
    )
    assert Paired((0.1, 0.2)).missing() == "needs at least 6 pairs, has 2"
    enough = Paired((0.01, -0.01, 0.02, -0.02, 0.0, 0.01))
    assert enough.missing(claimed=0.27) == "6 pairs are enough to find the claimed 0.27"


def verdicts(values, published, margin):
    return [judge(row, value, margin) for row, value in zip(values, published, strict=True)]


def test_a_published_run_of_the_same_kind_is_rarely_called_different(generator):
    draws = generator.normal(98.2, 0.1, (REPEATS, 6)).tolist()
    for margin in (Margin(0.3, 0.6), Margin(0.3, 0.6, 0.7)):  # the second: below resolution
        words = verdicts([d[:-1] for d in draws], [d[-1] for d in draws], margin)
        for word in (HIGHER, LOWER):
            assert words.count(word) / REPEATS == pytest.approx(0.025, abs=tolerance(0.025))
        assert (words.count(BELOW) > 0) == margin.below_resolution != (words.count(REPRODUCED) > 0)


@pytest.mark.parametrize("n, scale", [(3, 0.02), (5, 0.1), (12, 0.1)])
def test_a_mean_that_is_off_by_the_margin_is_rarely_called_reproduced(generator, n, scale):
    values = generator.normal(98.2 + 0.135, scale, (REPEATS, n)).tolist()
    words = verdicts(values, [98.2] * REPEATS, Margin(0.135, 0.27))
    assert words.count(REPRODUCED) / REPEATS <= 0.025 + tolerance(0.025)
    near = verdicts([[v - 0.135 for v in row] for row in values], [98.2] * REPEATS, Margin(0.135))
    if n == 12:  # twelve seeds reproduce what is there
        assert near.count(REPRODUCED) / REPEATS > 0.95
