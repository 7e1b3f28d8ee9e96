"""Random streams: reproducible, and all different."""

import subprocess
import sys
from itertools import product

import pytest

from spinal_repro.seeds import STREAMS, stream_seed


def test_no_two_streams_share_a_seed():
    seeds = [stream_seed(*key) for key in product(range(20), STREAMS, range(20))]
    assert len(set(seeds)) == len(seeds) == 20 * len(STREAMS) * 20
    assert all(0 <= seed < 2**63 for seed in seeds)  # any torch generator takes them
    assert max(seeds) > 2**62


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_seeds_are_the_same_in_every_process(hash_seed):
    code = "from spinal_repro.seeds import stream_seed; print(stream_seed(7, 'augment', 3))"
    command, settings = [sys.executable, "-c", code], {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=True)
    assert int(done.stdout) == stream_seed(7, "augment", 3)
