"""Operations on two devices, and steps that wait for the GPU, found without a GPU.

Tensors of PyTorch's FakeTensorMode have a device and a shape but no values: an operation on two
devices raises, and so does reading a value. Backward passes need a real GPU for ``cuda``, so they
are on ``meta``, another device that is not the CPU.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.composing import composed
from helpers.variety import Everything
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spinal_repro.data import loader
from spinal_repro.data.augment import AUGMENTATIONS, Augmentation, build_augmentations
from spinal_repro.data.loader import Batches
from spinal_repro.data.sources import ImageSet
from spinal_repro.models.backbones import BACKBONES
from spinal_repro.models.classifier import Classifier, build_model
from spinal_repro.models.heads import HEADS
from spinal_repro.training import callbacks
from spinal_repro.training.checkpoint import Checkpoint
from spinal_repro.training.engine import (
    Callback,
    Run,
    evaluate,
    start_stage,
    train_one_epoch,
    training_loss,
)
from spinal_repro.training.optim import build_optimizer
from spinal_repro.training.progress import Progress
from spinal_repro.training.setup import build_run

pytestmark = pytest.mark.filterwarnings("ignore")
COLOUR = ("dataset.channels=3", "dataset.image_size=32")
CASES = {
    "cnn": ["model=cnn", "head=fc"],
    "flatten": ["model=flatten", "head=linear"],
    "vgg5": ["model=vgg5", "head=spinal"],
    "arch2": ["model=arch2", "head=arch2"],
    "vgg11_bn": ["model=vgg11_bn", "head=spinal", *COLOUR],
    "resnet18_thin": ["model=resnet18_thin", "head=spinal", *COLOUR],
    "torchvision": ["model=torchvision", "model.name=resnet18", "head=fc"],
    "auxiliary": ["model.name=everything", "head=spinal"],
    "progressive": ["model=cnn", "head=progressive", "head.norm=true"],
    "shared": ["model=cnn", "head=spinal", "head.shared=true", "head.layers=8"],
    "dropout": ["model=cnn", "head=spinal", "head.dropout=0.5", "head.norm=true"],
}
AUGMENTS = {
    "perspective": {}, "rotation": {"degrees": 10}, "resized_crop": {"size": 24}, "hflip": {},
    "affine": {"degrees": 10, "translate": [0.1, 0.1]}, "vflip": {}, "pad_crop": {},
    "crop": {"size": 24},
}  # fmt: skip


@pytest.fixture(autouse=True)
def patched(monkeypatch):
    """Fake tensors cannot be pinned; each batch is made by itself, so that it can be watched."""
    monkeypatch.setattr(Batches, "_pinned", lambda self, tensor: tensor)
    monkeypatch.setattr(loader, "TOGETHER_ELSEWHERE", 1)
    monkeypatch.setattr(callbacks, "LOOK_EVERY", float("inf"))
    monkeypatch.setitem(BACKBONES._items, "everything", Everything)


class Crossings(TorchDispatchMode):
    """Lists operations on two devices; tensors without dimensions may be on another."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
        if len({tensor.device.type for tensor in tensors if tensor.dim()}) > 1:
            self.found.append(str(func))
        return result


def drawn(augmentation: Augmentation) -> Augmentation:
    """The augmentation, with real random numbers on the CPU."""
    draw = augmentation.draw

    def real(count: int, size: int, generator: torch.Generator) -> Tensor:
        with fake_tensor.unset_fake_temporarily():
            return draw(count, size, torch.Generator().manual_seed(0))

    augmentation.draw = real  # type: ignore[method-assign]
    return augmentation


@contextmanager
def fake() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def _gpu() -> str:
    try:
        with fake():
            torch.zeros(1).to("cuda")
    except RuntimeError:
        return "meta"
    return "cuda"


GPU = _gpu()


def moved(model: Classifier, device: str) -> Classifier:
    """The model on a fake device; ``Module.to`` cannot exchange real parameters for fake ones."""
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                fresh = nn.Parameter(value.detach().to(device), value.requires_grad)
                module._parameters[name] = fresh
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = value.to(device)
    return model


def built(case: str) -> tuple[Classifier, tuple[int, ...]]:
    config = composed(*CASES[case])
    size = config.input_size
    model = build_model(config.dataset, config.model, config.head, image_size=size)
    return model, (4, config.dataset.channels, size, size)


@pytest.mark.parametrize("case", CASES)
def test_models_stay_on_the_device(case):
    model, shape = built(case)
    with fake(), Crossings() as crossings:
        moved(model, GPU)
        crossings.found.clear()
        images = torch.rand(shape, device=GPU)
        labels = torch.zeros(len(images), dtype=torch.int64, device=GPU)
        with torch.autocast("cuda", torch.bfloat16, enabled=case == "cnn" and GPU == "cuda"):
            output = model.train()(images)
        _, loss = training_loss(output, labels, 0.1)
        with torch.inference_mode():
            logits = model.eval()(images)
        assert loss.device.type == logits.device.type == GPU
        assert crossings.found == []

        moved(model, "meta").train()
        crossings.found.clear()
        _, loss = training_loss(model(images.to("meta")), labels.to("meta"), 0.1)
        crossings.found.clear()
        loss.backward()
        assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())
        assert crossings.found == []


def test_every_head_and_augmentation_is_among_these():
    named = {word for overrides in CASES.values() for word in overrides}
    assert {f"head={name}" for name in HEADS.names()} <= named
    assert set(AUGMENTS) == set(AUGMENTATIONS.names())


def digits(count: int = 40) -> ImageSet:
    return ImageSet(torch.zeros(count, 1, 28, 28, dtype=torch.uint8), torch.arange(count) % 10)


def batches(device: str, images: ImageSet, **options: object) -> Batches:
    settings = {"batch_size": 8, "mean": [0.1], "std": [0.3], **options}
    indices = np.arange(len(images.labels))[::-1].copy()
    return Batches(images, indices, device=torch.device(device), **settings)  # type: ignore[arg-type]


def crossings_after_the_first(stream: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> list[str]:
    """Operations on two devices between the first batch and the last one."""
    with Crossings() as crossings:
        for number, (images, labels) in enumerate(stream()):
            assert images.device.type == labels.device.type == GPU
            if not number:
                crossings.found.clear()
        assert number == 4
    return crossings.found


@pytest.mark.parametrize("resize", [None, (32, 32)])
@pytest.mark.parametrize("augment", [[name] for name in AUGMENTS] + [["affine", "hflip"]], ids=str)
def test_batches_stay_on_the_device(augment, resize):
    entries = [{"name": name, **AUGMENTS[name]} for name in augment]
    augmentations = list(map(drawn, build_augmentations(entries)))
    with fake():
        made = batches(GPU, digits(), resize=resize, crop=28 if resize else None)
        assert crossings_after_the_first(lambda: made.epoch(0, 1, augmentations)) == []
        assert crossings_after_the_first(made.in_order) == []


def run_on(device: str, *overrides: str) -> Run:
    """A run on a fake device; to be called and used in `fake`."""
    with fake_tensor.unset_fake_temporarily():
        config = composed(
            "data.limit=40", "recipe.batch_size=8", "recipe.eval_batch_size=8", "head=fc",
            "recipe.augment=[{name: affine, degrees: 9}, {name: hflip}]", "runtime.device=cpu",
            *overrides,
        )  # fmt: skip
        real = build_run(config, torch.device("cpu")).run
    model = moved(real.model, device)
    return dataclasses.replace(
        real,
        model=model,
        optimizer=build_optimizer(config.recipe, model.parameters()),
        train=batches(device, digits()),
        select=batches(device, digits()),
        augmentations=list(map(drawn, real.augmentations)),
    )


class During(Callback):
    """Lists the operations on two devices in each step."""

    def __init__(self, crossings: Crossings) -> None:
        self.crossings, self.steps = crossings, []

    def on_step_end(self, *_: object) -> None:
        self.steps.append(list(self.crossings.found))
        self.crossings.found.clear()


def begun(run: Run, folder: Path) -> list[Callback]:
    """The callbacks of a run, at the start of its first epoch."""
    of_a_run = [
        callbacks.NonFiniteCheck(), Progress(folder / "log.txt", "none"), callbacks.StopOnSignal(),
        Checkpoint(folder, None, {}),
    ]  # fmt: skip
    for callback in of_a_run:
        callback.on_fit_start(run)
    start_stage(run, 1)
    return of_a_run


@pytest.mark.parametrize("case", ["momentum", "adam", "head alone, smoothed"])
def test_an_epoch_does_not_wait_for_the_device(tmp_path, case):
    """Reading its losses, as `fit` does afterwards, waits."""
    overrides = {
        "momentum": ["recipe.optimizer=sgd", "recipe.momentum=0.9"],
        "adam": ["recipe.optimizer=adam"],
        "head alone, smoothed": ["recipe.head_epochs=1", "recipe.label_smoothing=0.1"],
    }
    with fake(), Crossings() as crossings:
        run, during = run_on("meta", *overrides[case]), During(crossings)
        losses, correct, _ = train_one_epoch(run, 1, [*begun(run, tmp_path), during])
        assert len(during.steps) == 5 and during.steps[1:] == [[]] * 4
        assert crossings.found == [] and losses.is_meta and correct.is_meta
        with pytest.raises(DataDependentOutputException):
            losses.sum().item()


def test_an_evaluation_waits_for_the_device_after_its_last_batch_alone(monkeypatch):
    looks: list[int] = []
    with fake(), Crossings() as crossings:
        run = run_on(GPU)
        in_order = run.select.in_order

        def watched() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in in_order():
                yield batch
                looks.append(len(crossings.found))

        monkeypatch.setattr(run.select, "in_order", watched)
        with pytest.raises(DataDependentOutputException):
            evaluate(run.model, run.select, run.autocast)
    assert len(looks) == 5 and len(set(looks)) == 1


# the tests above can fail:


class Wrong(Augmentation):
    """Adds a constant that is on the CPU, moves it in each batch, or reads a value."""

    def __init__(self, mistake: str) -> None:
        self.mistake = mistake

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(count)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        if self.mistake == "reads":
            return images if parameters.max() > 0 else images + 1
        constant = torch.ones(28)
        return images + (constant.to(images.device) if self.mistake == "moves" else constant)


def test_mistakes_are_found():
    with fake():
        made = batches(GPU, digits())
        with pytest.raises(RuntimeError, match="device"):
            next(made.epoch(0, 1, [drawn(Wrong("is on the CPU"))]))
        with pytest.raises(DataDependentOutputException):
            next(made.epoch(0, 1, [drawn(Wrong("reads"))]))


def test_a_transfer_in_every_batch_is_found():
    with fake(), Crossings() as crossings:
        slow, made = drawn(Wrong("moves")), batches(GPU, digits())
        assert len(crossings_after_the_first(lambda: made.epoch(0, 1, [slow]))) == 4
        run, during = run_on("meta"), During(crossings)
        run.augmentations = [slow]
        train_one_epoch(run, 1, [during])
        assert all(during.steps)


def test_a_callback_that_reads_losses_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(callbacks, "LOOK_EVERY", 0.0)
    with fake():
        run = run_on("meta")
        with pytest.raises(DataDependentOutputException):
            train_one_epoch(run, 1, begun(run, tmp_path))
