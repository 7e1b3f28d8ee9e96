"""Precisions: each is what its name says, in the numerics, the record and the log."""

import pytest
import torch
import torch.nn.functional as F
from helpers.on_device import DEVICE, MARKS, small

from spinal_repro.training import engine
from spinal_repro.training.run import run

pytestmark = MARKS
DEFAULT = "tf32" if DEVICE.type == "cuda" else "fp32"
# TF32 keeps 10 bits: its rounding is near 3e-4; sums of fp32 products are off by 1e-6 at most
BETWEEN = 1e-5


def errors() -> dict[str, float]:
    """Relative errors of a convolution and a matrix product of shapes that tensor cores take."""
    generator = torch.Generator().manual_seed(0)
    images, kernel = (
        torch.randn(shape, generator=generator).to(DEVICE, memory_format=torch.channels_last)
        for shape in ((4, 256, 32, 32), (256, 256, 3, 3))
    )
    left, right = (torch.randn(512, 512, generator=generator).to(DEVICE) for _ in range(2))
    with torch.no_grad():
        pairs = {
            "convolution": (F.conv2d(images, kernel), F.conv2d(images.double(), kernel.double())),
            "product": (left @ right, left.double() @ right.double()),
        }
    return {name: float((a - b).norm() / b.norm()) for name, (a, b) in pairs.items()}


# is the convolution, and is the product, exact
EXACT = {"fp32": (True, True), "tf32": (False, True)}


@pytest.mark.parametrize("precision", ["auto", *EXACT, "bf16"])
def test_a_run_computes_with_its_precision(tmp_path, monkeypatch, precision):
    name = DEFAULT if precision == "auto" else precision
    if name == "tf32" and DEVICE.type != "cuda":
        pytest.skip("TF32 is of NVIDIA GPUs")
    if name == "tf32" and torch.cuda.get_device_capability(DEVICE) < (8, 0):
        pytest.skip("this GPU has no TF32")
    found, kinds, loss = {}, set(), engine.training_loss

    def watched(output, *given):
        found.update(found or errors())
        kinds.add(output.dtype)
        return loss(output, *given)

    monkeypatch.setattr(engine, "training_loss", watched)
    outcome = run(small(tmp_path, "recipe.epochs=1", f"runtime.precision={precision}"))
    runtime = outcome.record.config["runtime"]
    assert (runtime["device"], runtime["precision"]) == (DEVICE.type, name)
    assert f"{DEVICE.type} {name}" in (outcome.folder / "log.txt").read_text()
    assert kinds == {torch.bfloat16 if name == "bf16" else torch.float32}
    if name in EXACT:
        assert (found["convolution"] < BETWEEN, found["product"] < BETWEEN) == EXACT[name]
