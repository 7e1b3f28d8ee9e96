"""Random streams: reproducible, and all different."""

from itertools import product

from spinal_repro.seeds import STREAMS, stream_seed


def test_no_two_streams_share_a_seed():
    seeds = [stream_seed(*key) for key in product(range(20), STREAMS, range(20))]
    assert len(set(seeds)) == len(seeds) == 20 * len(STREAMS) * 20
    assert all(0 <= seed < 2**63 for seed in seeds)  # any torch generator takes them
    assert max(seeds) > 2**62


def test_seeds_are_the_same_in_every_version():
    assert stream_seed(7, "augment", 3) == 4309875677938409490
