"""Bits of right and wrong answers: nothing lost, small, damage noticed."""

import numpy as np
import pytest

from spinal_repro.errors import UserError
from spinal_repro.records.correctness import pack_correct, unpack_correct


@pytest.mark.parametrize("count", [1, 7, 8, 9, 10_000])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.98, 1.0])
def test_round_trip_in_little_room(count, share):
    correct = np.random.default_rng(count).random(count) < share
    packed = pack_correct(correct)
    assert np.array_equal(unpack_correct(packed, count), correct)
    assert len(packed) < (1800 if share == 0.5 else 800)


@pytest.mark.parametrize("text", ["", "?", "AAAA", "x" * 40, pack_correct(np.ones(200, bool))])
def test_damage_and_another_number_of_images_are_refused(text):
    with pytest.raises(UserError, match="correct_bits"):
        unpack_correct(text, 100)
