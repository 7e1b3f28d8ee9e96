"""Operations on two devices, and steps that wait for the GPU, found without a GPU.

Tensors of PyTorch's FakeTensorMode have a device and a shape but no values: an operation on two
devices raises, and so does reading a value. Backward passes need a real GPU for ``cuda``, so they
are on ``meta``, another device that is not the CPU.
"""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from helpers.composing import composed
from helpers.on_device import CASES, AfterStep, begun
from helpers.variety import ALL, OPTIONS, Everything
from torch import Tensor
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spinal_repro.data import loader
from spinal_repro.data.augment import AUGMENTATIONS, build_augmentations
from spinal_repro.data.loader import Batches
from spinal_repro.data.sources import ImageSet
from spinal_repro.models.backbones import BACKBONES
from spinal_repro.models.classifier import build_model
from spinal_repro.models.heads import HEADS
from spinal_repro.training import callbacks
from spinal_repro.training.engine import train_one_epoch
from spinal_repro.training.evaluation import evaluate
from spinal_repro.training.loss import training_loss
from spinal_repro.training.optim import build_optimizer
from spinal_repro.training.setup import build_run

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def patched(monkeypatch):
    """Fake tensors cannot be pinned; each batch is made by itself, so that it can be watched."""
    monkeypatch.setattr(Batches, "_pinned", lambda self, tensor: tensor)
    monkeypatch.setattr(loader, "FUSED_PIXELS_GPU", 1)
    monkeypatch.setattr(callbacks, "CHECK_INTERVAL", float("inf"))
    monkeypatch.setitem(BACKBONES._items, "everything", Everything)
    overwrite = torch.__future__.set_overwrite_module_params_on_conversion
    overwrite(True)  # so that `Module.to` exchanges real parameters for fake ones
    yield
    overwrite(False)


class Crossings(TorchDispatchMode):
    """Lists operations on two devices; tensors without dimensions may be on another."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
        if len({tensor.device.type for tensor in tensors if tensor.dim()}) > 1:
            self.found.append(str(func))
        return result

    def taken(self):
        """What was found since the last call."""
        found, self.found = self.found, []
        return found


def fake():
    return FakeTensorMode(allow_non_fake_inputs=True)


def _gpu():
    try:
        with fake():
            torch.zeros(1).to("cuda")
    except RuntimeError:
        return "meta"
    return "cuda"


GPU = _gpu()


def drawn(augmentation):
    """The augmentation, with real random numbers on the CPU."""
    draw = augmentation.draw

    def real(count, size, generator):
        with fake_tensor.unset_fake_temporarily():
            return draw(count, size, torch.Generator().manual_seed(0))

    augmentation.draw = real
    return augmentation


def drawn_mix(mixer):
    """The mixer, with real random numbers on the CPU."""
    make = mixer.make_params

    def real(images):
        with fake_tensor.unset_fake_temporarily():
            return make([torch.zeros(images[0].shape)])

    mixer.make_params = real
    return mixer


@pytest.mark.parametrize("case", [*CASES, "auxiliary"])
def test_models_stay_on_the_device(case):
    config = composed(*CASES.get(case, ["model.name=everything", "head=spinal"]))
    size = config.input_size
    model = build_model(config.dataset, config.model, config.head, image_size=size)
    twin = copy.deepcopy(model)
    with fake(), Crossings() as crossings:
        model.to(GPU)
        crossings.taken()
        images = torch.rand(4, config.dataset.channels, size, size, device=GPU)
        labels = torch.zeros(len(images), dtype=torch.int64, device=GPU)
        with torch.autocast("cuda", torch.bfloat16, enabled=case == "cnn" and GPU == "cuda"):
            output = model.train()(images)
        _, loss = training_loss(output, labels, 0.1)
        with torch.inference_mode():
            logits = model.eval()(images)
        assert loss.device.type == logits.device.type == GPU
        assert crossings.taken() == []

        twin.to("meta").train()
        _, loss = training_loss(twin(images.to("meta")), labels.to("meta"), 0.1)
        crossings.taken()
        loss.backward()
        assert all(p.grad is not None and p.grad.is_meta for p in twin.parameters())
        assert crossings.taken() == []


def test_every_head_is_among_these():
    named = {word for overrides in CASES.values() for word in overrides}
    assert {f"head={name}" for name in HEADS.names() if name != "pretrained"} <= named


def batches(device, **options):
    """Five batches of eight digits."""
    part = ImageSet(torch.zeros(40, 1, 28, 28, dtype=torch.uint8), torch.arange(40) % 10)
    settings = {"batch_size": 8, "mean": [0.1], "std": [0.3], **options}
    return Batches(part, np.arange(40)[::-1].copy(), device=torch.device(device), **settings)


@pytest.mark.parametrize("resize", [None, (32, 32)])
@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_batches_stay_on_the_device(name, resize):
    (augmentation,) = build_augmentations(composed(*ALL[f"augmentation {name}"]).recipe.augment)
    with fake(), Crossings() as crossings:
        made = batches(GPU, resize=resize, crop=28 if resize else None)
        for stream in (made.epoch(0, 1, [drawn(augmentation)]), made.in_order()):
            found = []
            for images, labels in stream:
                assert images.device.type == labels.device.type == GPU
                found.append(crossings.taken())
            assert len(found) == 5 and found[1:] == [[]] * 4


def run_on(device, *overrides):
    """A run on a fake device; to be called and used in `fake`."""
    with fake_tensor.unset_fake_temporarily():
        config = composed(
            "data.limit=40", "recipe.batch_size=8", "head=fc", "runtime.device=cpu",
            "recipe.augment=[{name: affine, degrees: 9}, {name: hflip}]", *overrides,
        )  # fmt: skip
        real = build_run(config, torch.device("cpu")).run
        weights = torch.rand(40) if config.recipe.class_weights == "balanced" else None
    model = real.model.to(device)
    return dataclasses.replace(
        real,
        model=model,
        optimizer=build_optimizer(config.recipe, model.parameters(), model.backbone.parameters()),
        average=copy.deepcopy(model) if config.recipe.ema else None,
        mixers=list(map(drawn_mix, real.mixers)),
        train=batches(device, weights=weights),
        select=batches(device),
        augmentations=list(map(drawn, real.augmentations)),
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["recipe.optimizer=sgd", "recipe.momentum=0.9"],
        ["recipe.optimizer=adam"],
        ["recipe.head_epochs=1", "recipe.label_smoothing=0.1"],
        *OPTIONS.values(),
    ],
)
def test_an_epoch_does_not_wait_for_the_device(tmp_path, overrides):
    """Reading its losses, as `fit` does afterwards, waits."""
    steps = []
    with fake(), Crossings() as crossings:
        run = run_on("meta", *overrides)
        watch = AfterStep(lambda: steps.append(crossings.taken()))
        losses, correct, _ = train_one_epoch(run, 1, [*begun(run, tmp_path), watch])
        assert len(steps) == 5 and steps[0] and steps[1:] == [[]] * 4
        assert crossings.found == [] and losses.is_meta and correct.is_meta
        with pytest.raises(DataDependentOutputException):
            losses.sum().item()


@pytest.mark.parametrize("keep", [False, True])
def test_an_evaluation_waits_for_the_device_after_its_last_batch_alone(monkeypatch, keep):
    looks = []
    with fake(), Crossings() as crossings:
        run = run_on(GPU)
        in_order = run.select.in_order

        def watched():
            for batch in in_order():
                yield batch
                looks.append(len(crossings.found))

        monkeypatch.setattr(run.select, "in_order", watched)
        with pytest.raises(DataDependentOutputException):
            evaluate(run.model, run.select, run.autocast, keep)
    assert len(looks) == 5 and len(set(looks)) == 1
