"""The word of a row: what each one needs, and what it must never be."""

import math

import pytest
from helpers.fakes import cell

from spinal_repro.paper.cells import claimed_differences, load_cells
from spinal_repro.results.verdicts import Margin, judge, margin, rounding

# Mean 98.2, SD 0.1: their mean is known to 4.303 * 0.1 / sqrt(3) = 0.248, and one new run is
# within 0.497, so that with a margin of 0.5 up to 0.252 off is still reproduced.
RUNS = [98.1, 98.2, 98.3]
TINY = Margin(0.01, claimed=0.02, resolution=0.05)


@pytest.mark.parametrize(
    "values, published, options, expected",
    [
        ([], 98.2, {}, "not run"),
        ([], None, {"change": "changed recipe"}, "not run"),
        (RUNS, None, {}, "no published number"),
        (RUNS, 98.2, {"change": "changed recipe"}, "changed recipe"),
        (RUNS[:2], 98.2, {"change": "changed recipe"}, "changed recipe"),
        (RUNS[:2], 98.15, {}, "too few runs"),
        (RUNS[:2], 98.15, {"margin": TINY}, "too few runs"),
        (RUNS, 98.2, {}, "reproduced"),
        (RUNS, 98.45, {}, "reproduced"),
        (RUNS, 98.46, {}, "inconclusive"),
        (RUNS, 97.94, {}, "inconclusive"),
        (RUNS, 98.71, {}, "lower"),
        (RUNS, 97.69, {}, "higher"),
        (RUNS, 98.2, {"margin": Margin(0.249)}, "reproduced"),
        (RUNS, 98.2, {"margin": Margin(0.249), "rounding": 0.005}, "inconclusive"),
        (RUNS, 98.71, {"rounding": 0.03}, "inconclusive"),  # for what was printed may be 98.68
        ([90.0, 98.0, 99.0], 98.4, {"margin": Margin(1.0)}, "inconclusive"),  # widely scattered
        ([98.2] * 3, 99.9, {}, "inconclusive"),  # equal runs do not show their spread
        ([98.2] * 3, 98.2, {"margin": TINY}, "below resolution"),
        (RUNS, 98.2, {"margin": TINY}, "below resolution"),
        (RUNS, 98.71, {"margin": TINY}, "lower"),
    ],
)
def test_the_word(values, published, options, expected):
    assert judge(values, published, **{"margin": Margin(0.5), **options}) == expected


def test_the_margin_is_half_of_the_difference_that_the_paper_claims():
    cells = {cell.name: cell for cell in load_cells("mnist")}
    claimed = claimed_differences(cells.values())
    for names, difference, images, below in (
        (("mnist/cnn_fc", "mnist/cnn_spinal8"), 0.27, 10_000, False),
        (("mnist/qmnist_vgg5_fc", "mnist/qmnist_vgg5_spinal"), 0.02, 60_000, True),
    ):
        for name in names:
            found, share = margin(cells[name], claimed[name]), cells[name].published[0].value / 100
            half = 196 * math.sqrt(share * (1 - share) / images)
            assert found.size == pytest.approx(difference / 2)
            assert half < found.resolution < 1.03 * half  # Wilson's is a little wider
            assert found.below_resolution == below
    assert margin(cells["mnist/cnn_spinal10"], None) == Margin(0.5)  # that of the table
    assert margin(cells["mnist/cnn_spinal10"], 4.0).size == 0.5  # half of it is more
    (error,) = load_cells("regression/sin_product_spinal_100")
    assert margin(error, 99.0).size == error.published[0].value / 2


def test_a_counterpart_of_several_cells_has_the_smallest_claimed_difference():
    others = (("mnist/near", 97.9), ("mnist/far", 98.3), ("mnist/unknown", None))
    cells = [cell(name, value=value, counterpart="mnist/fc") for name, value in others]
    for given in ([cell("mnist/fc"), *cells], [*cells[::-1], cell("mnist/fc")]):
        found = claimed_differences(given)
        assert found == {"mnist/fc": 0.1, "mnist/near": 0.1, "mnist/far": 0.3}


def test_what_is_read_off_a_chart_is_known_less_well():
    assert rounding("%", "digitised") > rounding("%", "quoted") > rounding("1e-3", "quoted") > 0
