"""The share of the machine's arithmetic that training uses."""

import functools

import torch

from bench.cases import Case
from bench.timing import repeated
from spinal_repro.models.counting import count

SIDES = {"cuda": 8192}  # of the matrices
SIDE = 1024


@functools.cache
def product_rate(device: torch.device, precision: str) -> float:
    """Return the multiplications a second of the product of two large matrices."""
    side, tf32 = SIDES.get(device.type, SIDE), torch.backends.cuda.matmul
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    first, second = torch.randn(2, side, side, device=device, dtype=dtype)
    before, tf32.allow_tf32 = tf32.allow_tf32, precision == "tf32"
    try:
        product = repeated(lambda: first @ second, device, 0.2)
        return side**3 / min(product() for _ in range(3))
    finally:
        tf32.allow_tf32 = before


def multiplications(case: Case) -> int:
    """Count those of an image in training: the backward pass has twice those of the forward."""
    dataset = case.config.dataset
    size = case.config.input_size
    return 3 * count(case.run(1).model, dataset.channels, size)["total_multiplications"]
