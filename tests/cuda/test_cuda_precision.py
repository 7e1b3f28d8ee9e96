"""Precisions: each is what its name says, in the numerics, the record and the first lines."""

import pytest
import torch
import torch.nn.functional as F
from helpers.on_device import DEVICE, MARKS, cuda_only, small

from spinal_repro.errors import UserError
from spinal_repro.models.classifier import Classifier
from spinal_repro.training import engine
from spinal_repro.training.run import run

pytestmark = MARKS
DEFAULT = "tf32" if DEVICE.type == "cuda" else "fp32"
# TF32 keeps 10 bits: its rounding is near 3e-4; sums of fp32 products are off by 1e-6 at most
BETWEEN = 1e-5


def errors() -> dict[str, float]:
    """How far a convolution and a matrix product are off those in double precision.

    Laid out and as wide as tensor cores like it, so that they are the fastest where allowed.
    """
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
    """Errors inside a run, before and after its forward passes; and what it says of itself."""
    found = []
    forward, loss = Classifier.forward, engine.training_loss

    def watched_forward(self, images):
        if self.training and len(found) < 2:
            found.append(errors())
        return forward(self, images)

    def watched_loss(*given):
        if len(found) < 2:
            found.append(errors())
        return loss(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "forward", watched_forward)
        patch.setattr(engine, "training_loss", watched_loss)
        outcome = run(config)
    assert len(found) == 2
    worst = {name: max(each[name] for each in found) for name in found[0]}
    least = {f"least {name}": min(each[name] for each in found) for name in found[0]}
    said = (outcome.folder / "log.txt").read_text().splitlines()[:3]
    precision = outcome.record.config["runtime"]["precision"]
    assert f"{DEVICE.type} {precision}" in " ".join(said)
    return {**worst, **least}, precision


def test_fp32_is_exact(tmp_path, monkeypatch):
    found, precision = observed(monkeypatch, small(tmp_path, "runtime.precision=fp32"))
    assert precision == "fp32"
    assert found["convolution"] < BETWEEN and found["product"] < BETWEEN


@cuda_only
def test_tf32_is_that_of_convolutions(tmp_path, monkeypatch):
    if torch.cuda.get_device_capability(DEVICE) < (8, 0):
        pytest.skip("this GPU has no TF32")
    found, precision = observed(monkeypatch, small(tmp_path, "runtime.precision=tf32"))
    assert precision == "tf32" and found["least convolution"] > BETWEEN
    assert found["product"] < BETWEEN


@cuda_only
def test_fp32_leaves_nothing_switched_off(tmp_path, monkeypatch):
    """In one process, as in a sweep: a run in fp32 does not change the one after it."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    run(small(tmp_path, "runtime.precision=fp32", "recipe.epochs=1"))
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


def test_the_default_is_recorded_as_what_it_stands_for(tmp_path):
    record = run(small(tmp_path, "recipe.epochs=1")).record
    assert record.config["runtime"]["precision"] == DEFAULT
    assert record.config["runtime"]["device"] == DEVICE.type


def test_bf16_computes_in_bf16_and_says_so(tmp_path, monkeypatch):
    kinds = set()
    loss = engine.training_loss

    def watched(output, *given):
        kinds.add(output.dtype)
        return loss(output, *given)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "training_loss", watched)
        outcome = run(small(tmp_path, "runtime.precision=bf16"))
    assert kinds == {torch.bfloat16}
    assert outcome.record.config["runtime"]["precision"] == "bf16"
    assert f"{DEVICE.type} bf16" in (outcome.folder / "log.txt").read_text()


def test_tf32_is_refused_on_a_cpu(tmp_path):
    with pytest.raises(UserError, match="tf32"):
        run(small(tmp_path, "runtime.precision=tf32", "runtime.device=cpu"))
    assert not list(tmp_path.iterdir())
