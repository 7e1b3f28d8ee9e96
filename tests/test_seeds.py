"""Random streams: reproducible, and no two alike."""

import subprocess
import sys
from itertools import product

import pytest

from spinal_repro.seeds import STREAMS, stream_seed


def test_no_two_streams_share_a_seed():
    seeds = [stream_seed(*key) for key in product(range(20), STREAMS, range(20))]
    assert len(set(seeds)) == len(seeds) == 20 * len(STREAMS) * 20


def test_seeds_fit_every_generator():
    """63 bits: torch takes any 64-bit number, but not as a negative one everywhere."""
    seeds = [stream_seed(*key) for key in product(range(100), STREAMS, [0, 1, 200])]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # they use the whole range


def test_epoch_0_is_before_training():
    assert stream_seed(5, "order") == stream_seed(5, "order", 0) != stream_seed(5, "order", 1)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_seeds_are_the_same_in_every_process(hash_seed):
    code = "from spinal_repro.seeds import stream_seed; print(stream_seed(7, 'augment', 3))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == stream_seed(7, "augment", 3)


def test_a_stream_that_does_not_exist_is_our_own_mistake():
    with pytest.raises(AssertionError):
        stream_seed(0, "weights")
