"""Steps as CUDA graphs; tests/training/test_graph.py tests the same on the CPU with a stand-in."""

import pytest
import torch
from helpers.interrupting import StopAt, results
from helpers.on_device import DEVICE, MARKS, AfterStep, begun, built, cuda_only, small
from torch import nn

from spinal_repro.training import callbacks, graph
from spinal_repro.training.checkpoint import Interrupted
from spinal_repro.training.engine import train_one_epoch
from spinal_repro.training.graph import GraphedSteps
from spinal_repro.training.run import run

pytestmark = [*MARKS, cuda_only]
GRAPH = ("runtime.graph=auto", "runtime.deterministic=true", "data.limit=90")  # 32, 32, 26 images
OPTIMIZERS = {"sgd": 0.9, "adam": 0.0}


@pytest.fixture(autouse=True)
def captures(monkeypatch):
    """The graphs that were captured."""
    made, capture = [], graph.capture

    def counted(*given):
        made.append(capture(*given))
        return made[-1]

    monkeypatch.setattr(graph, "capture", counted)
    return made


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_graphed_run_is_the_eager_run(tmp_path, captures, optimizer):
    """Dropout, batch norm and augmentation included; the learning rate is rounded in a graph."""
    changes = (f"recipe.optimizer={optimizer}", f"recipe.momentum={OPTIMIZERS[optimizer]}",
               "recipe.lr=0.001")  # fmt: skip
    found, eager = (
        run(small(tmp_path / name, *GRAPH, *changes, f"runtime.graph={name}")).record.history
        for name in ("auto", "none")
    )
    assert len(captures) == 1
    for one, other in zip(found, eager, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_run_is_the_same_in_every_bit(tmp_path, captures, optimizer):
    changes = (f"recipe.optimizer={optimizer}", f"recipe.momentum={OPTIMIZERS[optimizer]}")
    whole = run(small(tmp_path / "whole", *GRAPH, *changes))
    config = small(tmp_path / "stopped", *GRAPH, *changes)
    with pytest.raises(Interrupted):
        run(config, [StopAt(epoch=2)])
    continued = run(config)
    assert len(captures) == 3
    found, expected = results(continued.folder), results(whole.folder)
    assert found == expected


def test_no_step_waits_for_the_device(tmp_path, monkeypatch, captures):
    monkeypatch.setattr(callbacks, "CHECK_INTERVAL", float("inf"))
    made = built(small(tmp_path, "runtime.graph=auto", "recipe.batch_size=8", "data.limit=96"))
    of_a_run, steps = begun(made, tmp_path), []
    train_one_epoch(made, 1, of_a_run)

    def begin():
        steps.append(1)
        torch.cuda.set_sync_debug_mode("error")

    try:
        losses, *_ = train_one_epoch(made, 2, [*of_a_run, AfterStep(begin)])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(steps) == len(losses) >= 10 and len(captures) == 1
    assert (losses > 0).all()


class Waiting(nn.Module):
    """A layer that reads a value from the device."""

    def forward(self, values):
        return values if values.sum().item() > 0 else values * 2


def test_a_model_that_waits_is_trained_without(tmp_path, captures):
    made = built(small(tmp_path, *GRAPH))
    assert isinstance(made.steps, GraphedSteps) and made.train.device.type == DEVICE.type
    made.model.head = nn.Sequential(Waiting(), made.model.head)
    losses, *_ = train_one_epoch(made, 1, begun(made, tmp_path))
    assert (losses > 0).all() and not captures
    assert "training without CUDA graph" in made.steps.note
