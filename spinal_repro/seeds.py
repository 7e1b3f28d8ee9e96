"""Separate random streams, each derived from the run's seed.

Initial weights, data order, augmentation, dropout and learning-rate draws never share a stream,
so two runs that differ in the head alone start from the same backbone and see the same batches.
Streams used during training are derived per epoch, so a resumed run needs no saved random state.
"""

import hashlib

MAX_SEED = 2**32 - 1  # largest seed that NumPy accepts; the seed of a run is hashed first
STREAMS = ("backbone", "head", "order", "augment", "dropout", "lr", "samples")


def stream_seed(seed: int, stream: str, epoch: int = 0) -> int:
    """A 63-bit seed for one of `STREAMS` in one epoch of a run; epoch 0 is before training."""
    assert stream in STREAMS, stream
    digest = hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
