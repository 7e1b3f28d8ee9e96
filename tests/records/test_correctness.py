"""Bits of right and wrong answers: nothing lost, small, damage noticed."""

import numpy as np
import pytest

from spinal_repro.errors import UserError
from spinal_repro.records.correctness import pack_correct, unpack_correct


@pytest.mark.parametrize("count", [1, 7, 8, 9, 153, 10_000])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.98, 1.0])
def test_round_trip(count, share):
    correct = np.random.default_rng(count).random(count) < share
    assert np.array_equal(unpack_correct(pack_correct(correct), count), correct)


def test_ten_thousand_images_take_little_room():
    generator = np.random.default_rng(0)
    assert len(pack_correct(generator.random(10_000) < 0.5)) < 1800
    assert len(pack_correct(generator.random(10_000) < 0.98)) < 800


@pytest.mark.parametrize("damage", ["", "?", "AAAA", "x" * 40])
def test_damage_is_refused(damage):
    with pytest.raises(UserError, match="correct_bits"):
        unpack_correct(damage, 100)


def test_another_number_of_images_is_refused():
    text = pack_correct(np.ones(100, dtype=bool))
    with pytest.raises(UserError, match="104 bits, expected 200"):
        unpack_correct(text, 200)
