"""Precisions: each is what its name says, in the numerics, the record and the log."""

import pytest
import torch
import torch.nn.functional as F
from helpers.on_device import DEVICE, MARKS, cuda_only, small

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


def observed(monkeypatch, config) -> tuple[dict[str, float], str]:
    """Errors inside a run, and its recorded precision."""
    found, loss = [], engine.training_loss

    def watched(*given):
        if not found:
            found.append(errors())
        return loss(*given)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "training_loss", watched)
        outcome = run(config)
    precision = outcome.record.config["runtime"]["precision"]
    assert f"{DEVICE.type} {precision}" in (outcome.folder / "log.txt").read_text()
    return found[0], precision


def test_fp32_is_exact(tmp_path, monkeypatch):
    found, precision = observed(monkeypatch, small(tmp_path, "runtime.precision=fp32"))
    assert precision == "fp32"
    assert found["convolution"] < BETWEEN and found["product"] < BETWEEN


@cuda_only
def test_tf32_is_that_of_convolutions(tmp_path, monkeypatch):
    if torch.cuda.get_device_capability(DEVICE) < (8, 0):
        pytest.skip("this GPU has no TF32")
    found, precision = observed(monkeypatch, small(tmp_path, "runtime.precision=tf32"))
    assert precision == "tf32" and found["convolution"] > BETWEEN
    assert found["product"] < BETWEEN


def test_the_default_is_resolved_in_the_record(tmp_path):
    record = run(small(tmp_path, "recipe.epochs=1")).record
    assert record.config["runtime"]["precision"] == DEFAULT
    assert record.config["runtime"]["device"] == DEVICE.type


def test_bf16_computes_in_bf16(tmp_path, monkeypatch):
    kinds, loss = set(), engine.training_loss

    def watched(output, *given):
        kinds.add(output.dtype)
        return loss(output, *given)

    monkeypatch.setattr(engine, "training_loss", watched)
    outcome = run(small(tmp_path, "runtime.precision=bf16"))
    assert kinds == {torch.bfloat16}
    assert outcome.record.config["runtime"]["precision"] == "bf16"
