"""The word of a row: what each one needs, and what it must never be."""

import pytest

from spinal_repro.results.verdicts import (
    CHANGED,
    FEW,
    HIGHER,
    INCONCLUSIVE,
    LOWER,
    NOT_RUN,
    REDUCED,
    REPRODUCED,
    RULES,
    UNPUBLISHED,
    judge,
    margin,
    margin_rule,
    rounding,
)

RUNS = [98.1, 98.2, 98.3]  # mean 98.2, SD 0.1: one new run within 98.2 -+ 0.497


@pytest.mark.parametrize(
    "values, published, options, expected",
    [
        ([], 98.2, {}, NOT_RUN),
        ([], None, {"change": REDUCED}, NOT_RUN),
        (RUNS, None, {}, UNPUBLISHED),
        (RUNS, 98.2, {"change": REDUCED}, REDUCED),
        (RUNS, 90.0, {"change": REDUCED}, REDUCED),
        (RUNS, 98.2, {"change": CHANGED}, CHANGED),
        (RUNS[:2], 98.15, {}, FEW),
        (RUNS[:1], 50.0, {}, FEW),
        (RUNS, 98.2, {}, REPRODUCED),
        (RUNS, 98.69, {}, REPRODUCED),
        (RUNS, 98.71, {}, LOWER),
        (RUNS, 97.69, {}, HIGHER),
        (RUNS, 98.2, {"margin": 0.4}, INCONCLUSIVE),
        ([90.0, 98.0, 99.0], 98.4, {"margin": 1.0}, INCONCLUSIVE),  # wide scatter supports neither
        ([90.0, 98.0, 99.0], 93.0, {"margin": 1.0}, INCONCLUSIVE),
        (RUNS, 98.71, {"rounding": 0.03}, REPRODUCED),
        ([98.2] * 3, 98.2, {}, REPRODUCED),
        ([98.2] * 3, 98.21, {}, LOWER),
        ([98.2] * 3, 98.204, {"rounding": 0.005}, REPRODUCED),
    ],
)
def test_the_word(values, published, options, expected):
    assert judge(values, published, **{"margin": 0.5, **options}) == expected


def test_every_word_has_its_rule():
    words = {REPRODUCED, INCONCLUSIVE, HIGHER, LOWER, FEW, REDUCED, CHANGED, UNPUBLISHED, NOT_RUN}
    assert set(RULES) == words and all(RULES.values())


def test_margins_are_in_the_unit_of_the_table():
    assert (
        margin("mnist", "%", 98.0) == 0.5 and margin_rule("mnist", "%") == "0.5 percentage points"
    )
    assert margin("transfer", "%", 98.0) == 1.0
    assert margin("regression", "1e-3", 1.2) == pytest.approx(0.6)
    assert "50 % of the published value" in margin_rule("regression", "1e-3")


def test_what_is_read_off_a_chart_is_known_less_well():
    assert rounding("%", "digitised") > rounding("%", "quoted") > rounding("1e-3", "quoted") > 0
