"""FC against Spinal over seeds."""

import numpy as np
import pytest
from helpers.made_records import FC, SPINAL, grouped, made

from spinal_repro.records.correctness import pack_correct
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.pairs import FEW, NONE_SHOWN, SPINAL_HIGHER, SPINAL_LOWER, row


def paired(records):
    return ResultsIndex(grouped([FC, SPINAL], records), {}).pairs


def records(fc, spinal, **changes):
    heads = {"fc": fc, "spinal": spinal}
    return [
        made(head, seed, correct, **changes)
        for head, numbers in heads.items()
        for seed, correct in enumerate(numbers)
    ]


def test_seeds_are_paired_and_others_left_out():
    found = [*records([9800, 9900, 9700], [9810, 9920]), made("spinal", 7, 9000)]
    (pair,) = paired(found)
    assert pair.seeds == (0, 1)
    assert pair.comparison.differences == pytest.approx((0.1, 0.2))
    assert pair.verdict == FEW and row(pair)["fc"] == pytest.approx(98.5)


@pytest.mark.parametrize(
    "spinal, word",
    [
        ([9821, 9830, 9841], SPINAL_HIGHER),
        ([9781, 9790, 9801], SPINAL_LOWER),
        ([9811, 9818, 9832], NONE_SHOWN),
    ],
)
def test_the_word(spinal, word):
    (pair,) = paired(records([9810, 9820, 9830], spinal))
    assert pair.verdict == word


def test_reduced_runs_give_a_direction_and_no_more():
    (pair,) = paired(records([9810] * 3, [9910] * 3, epochs=2))
    assert pair.verdict == "reduced budget" and pair.comparison.mean == pytest.approx(1.0)


def test_whole_and_short_runs_or_other_data_are_no_pair():
    short = [made("fc", 0), made("spinal", 0, epochs=2)]
    assert paired(short) == []
    other = made("spinal", 0)
    other["data"]["split_hash"] = "0" * 64
    assert paired([made("fc", 0), other]) == []


def test_images_are_compared_where_the_records_keep_them():
    right = {"fc": np.ones(10_000, bool), "spinal": np.ones(10_000, bool)}
    right["fc"][:200], right["spinal"][150:250] = False, False
    found = []
    for head, bits in right.items():
        record = made(head, 0, int(bits.sum()))
        record["test"]["last"]["correct_bits"] = pack_correct(bits)
        found.append(record)
    (pair,) = paired(found)
    (image,) = pair.images
    assert (image.only_fc, image.only_spinal) == (50, 150) and image.p < 1e-9
    assert row(pair)["mcnemar"] == "1 of 1"
    del found[0]["test"]["last"]["correct_bits"]  # a record from before
    (pair,) = paired(found)
    assert pair.images == () and "mcnemar" not in row(pair)
