"""The word of a row: what each one needs, and what it must never be."""

import pytest

from spinal_repro.results.verdicts import judge, margin, rounding

RUNS = [98.1, 98.2, 98.3]  # mean 98.2, SD 0.1: one new run within 98.2 -+ 0.497


@pytest.mark.parametrize(
    "values, published, options, expected",
    [
        ([], 98.2, {}, "not run"),
        ([], None, {"change": "reduced budget"}, "not run"),
        (RUNS, None, {}, "no published number"),
        (RUNS, 98.2, {"change": "reduced budget"}, "reduced budget"),
        (RUNS, 90.0, {"change": "reduced budget"}, "reduced budget"),
        (RUNS, 98.2, {"change": "changed recipe"}, "changed recipe"),
        (RUNS[:2], 98.15, {}, "too few runs"),
        (RUNS[:1], 50.0, {}, "too few runs"),
        (RUNS, 98.2, {}, "reproduced"),
        (RUNS, 98.69, {}, "reproduced"),
        (RUNS, 98.71, {}, "lower"),
        (RUNS, 97.69, {}, "higher"),
        (RUNS, 98.2, {"margin": 0.4}, "inconclusive"),
        (
            [90.0, 98.0, 99.0],
            98.4,
            {"margin": 1.0},
            "inconclusive",
        ),  # wide scatter supports neither
        ([90.0, 98.0, 99.0], 93.0, {"margin": 1.0}, "inconclusive"),
        (RUNS, 98.71, {"rounding": 0.03}, "reproduced"),
        ([98.2] * 3, 98.2, {}, "reproduced"),
        ([98.2] * 3, 98.21, {}, "lower"),
        ([98.2] * 3, 98.204, {"rounding": 0.005}, "reproduced"),
    ],
)
def test_the_word(values, published, options, expected):
    assert judge(values, published, **{"margin": 0.5, **options}) == expected


def test_margins_are_in_the_unit_of_the_table():
    assert margin("mnist", "%", 98.0) == 0.5
    assert margin("transfer", "%", 98.0) == 1.0
    assert margin("regression", "1e-3", 1.2) == pytest.approx(0.6)


def test_what_is_read_off_a_chart_is_known_less_well():
    assert rounding("%", "digitised") > rounding("%", "quoted") > rounding("1e-3", "quoted") > 0
