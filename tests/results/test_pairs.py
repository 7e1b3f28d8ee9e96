"""Two cells compared over seeds."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.made_records import FC, SPINAL, cell, grouped, made

from spinal_repro.records.correctness import pack_correct
from spinal_repro.records.statistics import image_interval
from spinal_repro.results.accuracy import row as accuracy_row
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.pairs import BETTER, OPEN, WORSE, row
from spinal_repro.results.verdicts import CHANGED

CLAIMING = replace(SPINAL, published=cell("x", value=98.6).published)  # 0.4 more than FC
CLEAR, NONE = [21, 20, 19] * 2, [20, -20] * 3


def paired(records, *cells):
    return ResultsIndex(grouped(cells or [FC, SPINAL], records), {}).pairs


def gains(*differences, selected=None, wrong=None, **changes):
    """Runs of FC, and of Spinal with so many of 10,000 images more right, by seed.

    Args:
        selected: The same at the selected epoch, where that is not the last one.
        wrong: Images that each head has wrong, for records that keep them.
        changes: As in `made`.
    """
    for seed, gain in enumerate(differences):
        for which, more in (("fc", 0), ("spinal", gain)):
            record = made(which, seed, 9700 + 10 * (seed % 3) + more, **changes)
            if selected and which == "spinal":
                record["test"]["selected"]["correct"] += selected[seed] - gain
            bits = np.ones(10_000, bool)
            bits[wrong[which] if wrong else []] = False
            record["test"]["last"]["correct_bits"] = pack_correct(bits) if wrong else None
            yield record


def test_seeds_are_paired_and_others_left_out():
    (pair,) = paired([*gains(10, 20), made("fc", 2), made("spinal", 7, 9000)])
    assert pair.seeds == (0, 1) and row(pair)["fc"] == pytest.approx(97.05)
    assert pair.comparison.differences == pytest.approx((0.1, 0.2))


@pytest.mark.parametrize(
    ("differences", "cell", "verdict"),
    [
        (CLEAR, SPINAL, BETTER),
        ([-gain for gain in CLEAR], SPINAL, WORSE),
        ([210, 200, 190, 200, 200], SPINAL, f"{OPEN}: needs about 6 pairs, has 5"),  # p 2 / 2^5
        ([210, 190], SPINAL, f"{OPEN}: needs at least 6 pairs, has 2"),
        ([113] * 5 + [-33], SPINAL, f"{OPEN}: needs about 7 pairs, has 6"),  # p is 4 / 2^6
        ([113, -33] * 3, SPINAL, f"{OPEN}: needs about 34 pairs, has 6"),  # half an SD
        ([1, -1] * 3, SPINAL, f"{OPEN}: needs more than 1,000 pairs, has 6"),
        ([74, -72] * 3, CLAIMING, f"{OPEN}: needs about 34 pairs, has 6"),  # 0.4 is half an SD
        ([2, -1] * 4, CLAIMING, f"{OPEN}: 8 pairs are enough to find the claimed 0.4"),
    ],
)
def test_six_pairs_a_clear_interval_and_the_exact_test_decide(differences, cell, verdict):
    (pair,) = paired(gains(*differences), FC, cell)
    assert pair.verdict == verdict and pair.decidable == (len(differences) >= 6)
    p = row(pair)["p"]
    assert p is None if len(differences) < 6 else p >= 2 / 2 ** len(differences)


@pytest.mark.parametrize(
    ("last", "selected", "said", "of_row"),
    [
        (CLEAR, CLEAR, None, None),
        (CLEAR, NONE, "inconclusive", None),
        (NONE, CLEAR, "better", None),
        (CLEAR, [100 + gain for gain in CLEAR], None, "below resolution"),  # 98.3 of 98.2
    ],
)
def test_a_verdict_that_the_choice_of_the_epoch_changes_is_marked(last, selected, said, of_row):
    """Here the last epoch is reported; the paper claims no difference and 98.2 %."""
    (pair,) = paired(gains(*last, selected=selected))
    assert row(pair)["sensitive"] == (said and f"best on test: {said}")
    found = accuracy_row(pair.spinal)
    assert (found["verdict"], found["sensitive"]) == ("lower", of_row and f"best on test: {of_row}")


def test_runs_of_a_changed_recipe_decide_nothing():
    (pair,) = paired(gains(*CLEAR, selected=NONE, recipe={"lr": 0.02}))
    assert pair.comparison.side() == 1 and not pair.decidable
    assert (row(pair)["verdict"], row(pair)["sensitive"]) == (CHANGED, None)


def test_other_recipes_or_other_data_are_no_pair():
    assert paired([made("fc", 0), made("spinal", 0, epochs=9)]) == []
    other = made("spinal", 0)
    other["data"]["split_hash"] = "0" * 64
    assert paired([made("fc", 0), other]) == []


def test_images_are_compared_where_the_records_keep_them():
    """Their interval is shown for few pairs and for equal differences, the t interval for none."""
    wrong = {"fc": slice(0, 200), "spinal": slice(150, 250)}
    ends = np.array(image_interval(50, 150, 10_000))
    for differences in ([100], [90, 110], [100] * 7):
        (pair,) = paired(gains(*differences, wrong=wrong))
        assert set(pair.images) == {(50, 150)}
        assert row(pair)["mcnemar"] == f"{len(differences)} of {len(differences)}"
        assert pair.interval == pytest.approx(ends)
        assert (OPEN in pair.verdict) == (len(differences) < 6)
        (pair,) = paired(gains(*differences))
        assert pair.images == () and "mcnemar" not in row(pair) and pair.interval is None
    (pair,) = paired(gains(90, 100, 110, wrong=wrong))
    assert pair.interval == pytest.approx((1 - 0.2484, 1 + 0.2484), abs=1e-4)
