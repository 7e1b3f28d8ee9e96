"""Batches and steps on the device are those of the CPU, and no step waits for the device."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from helpers.composing import composed
from helpers.on_device import CASES, DEVICE, MARKS, AfterStep, begun, built, cuda_only, small
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from spinal_repro.data import loader
from spinal_repro.data.augment import Augmentation, HorizontalFlip, Perspective
from spinal_repro.data.loader import Batches
from spinal_repro.data.sources import ImageSet
from spinal_repro.models.classifier import build_model
from spinal_repro.training import callbacks
from spinal_repro.training.device import backend_settings
from spinal_repro.training.engine import train_one_epoch
from spinal_repro.training.evaluation import evaluate
from spinal_repro.training.loss import training_loss

pytestmark = MARKS
IMAGES = 8
# Error of a tensor's gradient, relative to its norm, or to a thousandth of that of all gradients if
# that is larger (biases before batch norm have gradients of rounding errors only). In double
# precision the loss, which is in single precision, leaves up to 3e-7. In single precision rounding
# flips a ReLU or a max pooling here and there: up to 4e-3 between single and double precision on a
# CPU. A gradient that is missing, or of another batch, is off by 1 or more.
TOLERANCES = {torch.float64: 1e-5, torch.float32: 5e-2}
LOSS_TOLERANCE = 1e-5
COUNT, EPOCHS = 100, 3


def made(device: torch.device, stored: bool) -> Batches:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (COUNT, 1, 28, 28), generator=generator, dtype=torch.uint8)
    part = ImageSet(images.numpy() if stored else images, torch.arange(COUNT))
    return Batches(
        part, np.arange(COUNT), batch_size=8, mean=[0.1], std=[0.3], device=device,
        channels_last=True,
    )  # fmt: skip


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("augmented", [False, True])
def test_batches_are_those_of_the_cpu(stored, augmented):
    """Nothing waits for the copies, so a buffer that is used again too early would show here."""
    augmentations: list[Augmentation] = [HorizontalFlip(), Perspective()] if augmented else []
    ours, plain = made(DEVICE, stored), made(torch.device("cpu"), stored)
    seen = []
    for epoch in range(1, EPOCHS + 1):
        ahead = list(ours.epoch(0, epoch, augmentations, draw_next=epoch < EPOCHS))
        for (images, labels), (others, other_labels) in zip(
            ahead, plain.epoch(0, epoch, augmentations), strict=True
        ):
            assert images.device.type == labels.device.type == DEVICE.type
            assert torch.equal(labels.cpu(), other_labels)
            # a corner of a warp may fall into the next pixel
            close = torch.isclose(images.cpu(), others, rtol=1e-3, atol=1e-3)
            assert close.float().mean() > 0.999
            seen.append(labels.cpu())
    assert torch.equal(torch.cat(seen).bincount(), torch.full((COUNT,), EPOCHS))


def step(
    model: nn.Module, images: Tensor, labels: Tensor, device: torch.device
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of a copy of a model on a device, laid out as a run lays it out."""
    twin = copy.deepcopy(model).to(device, images.dtype, memory_format=torch.channels_last).train()
    batch = images.to(device, memory_format=torch.channels_last)
    _, loss = training_loss(twin(batch), labels.to(device), 0.0)
    loss.backward()
    return loss.item(), {n: p.grad.cpu().double() for n, p in twin.named_parameters()}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_one_step_is_that_of_the_cpu(case, dtype):
    config = composed("dataset=digits", *CASES[case])
    dataset, size = config.dataset, config.input_size
    model = build_model(dataset, config.model, config.head, image_size=size)
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, dataset.channels, size, size, dtype=dtype, generator=generator)
    labels = torch.randint(0, dataset.outputs, (IMAGES,), generator=generator)
    model = model.to(dtype)
    plain_loss, plain = step(model, images, labels, torch.device("cpu"))
    with backend_settings(DEVICE, "fp32"):  # no TF32
        loss, found = step(model, images, labels, DEVICE)
    assert loss == pytest.approx(plain_loss, rel=LOSS_TOLERANCE)
    whole = sum(float(gradient.norm()) ** 2 for gradient in plain.values()) ** 0.5
    assert whole > 0 and plain.keys() == found.keys()
    for name, gradient in plain.items():
        size = max(float(gradient.norm()), 1e-3 * whole)
        error = float((found[name] - gradient).norm()) / size
        assert error <= TOLERANCES[dtype], name


@contextmanager
def no_waiting(batches: int) -> Iterator[Callable[[], None]]:
    """Waiting for the device raises between the first and the last call of the function."""
    calls = 0

    def called() -> None:
        nonlocal calls
        calls += 1
        torch.cuda.set_sync_debug_mode("error" if calls < batches else "default")

    try:
        yield called
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert calls == batches


@cuda_only
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_no_step_waits_for_the_device(tmp_path, monkeypatch, optimizer):
    """Images come in several portions; steps of the first epoch choose kernels and may wait."""
    monkeypatch.setattr(loader, "FUSED_PIXELS_GPU", 3 * 8 * 28**2)
    monkeypatch.setattr(callbacks, "CHECK_INTERVAL", float("inf"))
    momentum = {"sgd": 0.9, "adam": 0.0}[optimizer]
    run = built(
        small(
            tmp_path, "recipe.batch_size=8", "recipe.eval_batch_size=8", "recipe.lr=0.001",
            f"recipe.optimizer={optimizer}", f"recipe.momentum={momentum}",
        )
    )  # fmt: skip
    steps = len(run.train)
    assert steps >= 10 and len(run.select) >= 10
    of_a_run = begun(run, tmp_path)
    train_one_epoch(run, 1, of_a_run)
    with no_waiting(steps + 1) as called:
        losses, *_ = train_one_epoch(run, 2, [*of_a_run, AfterStep(called)])
        called()  # the end of the epoch does not wait, either
    assert losses.sum().item() > 0
    evaluate(run.model, run.select, run.autocast)
    in_order = run.select.in_order
    with no_waiting(len(run.select)) as called:

        def watched():
            for batch in in_order():
                yield batch
                called()

        monkeypatch.setattr(run.select, "in_order", watched)
        evaluate(run.model, run.select, run.autocast)


@cuda_only
def test_waiting_in_a_step_would_be_noticed():
    value = torch.ones((), device=DEVICE)
    with pytest.raises(RuntimeError, match="synchronizing"), no_waiting(2) as called:
        called()
        value.item()
