"""The share of the machine's arithmetic that training uses."""

import functools

import torch
import torch.nn.functional as F

from bench.cases import Case
from bench.timing import repeated
from spinal_repro.models.counting import count

SIDE, SIDE_ON_GPU = 1024, 8192  # of the matrices


@functools.cache
def product_rate(device: torch.device, precision: str) -> float:
    """Return the multiplications a second of the product of two large matrices.

    On a CPU it is written as a 1x1 convolution, for which PyTorch uses oneDNN, as in training: on
    some CPUs the products of MKL are slower.
    """
    side, tf32 = SIDE_ON_GPU if device.type == "cuda" else SIDE, torch.backends.cuda.matmul
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    first, second = torch.randn(2, side, side, device=device, dtype=dtype)
    work = functools.partial(torch.matmul, first, second)
    if device.type == "cpu":
        pixels, weights = first.view(-1, 4, 4, side), second.view(side, side, 1, 1)
        work = functools.partial(F.conv2d, pixels.permute(0, 3, 1, 2), weights)
    before, tf32.allow_tf32 = tf32.allow_tf32, precision == "tf32"
    try:
        product = repeated(work, device, 0.2)
        return side**3 / min(product() for _ in range(3))
    finally:
        tf32.allow_tf32 = before


def multiplications(case: Case) -> int:
    """Count those of an image in training: the backward pass has twice those of the forward."""
    dataset = case.config.dataset
    size = case.config.input_size
    return 3 * count(case.run(1).model, dataset.channels, size)["total_multiplications"]
