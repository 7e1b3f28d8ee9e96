"""Several seeds trained together on CUDA, as scripts/ensemble.py does."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
from helpers.on_device import DEVICE, MARKS, cuda_only, small
from torch import nn

from spinal_repro.training.run import run

pytestmark = MARKS
SCRIPTS = Path(__file__).parents[2] / "scripts"
SEEDS = [0, 1, 2]
FULL_PRECISION = "runtime.precision=fp32"


@pytest.fixture
def script(monkeypatch):
    if not SCRIPTS.is_dir():
        pytest.skip("scripts/ is in the repository, not in the source archive")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("ensemble")
    monkeypatch.delitem(sys.modules, "ensemble")


def histories(records):
    return [entry for record in records for entry in record.history]


def test_without_dropout_the_records_are_those_of_single_runs(script, tmp_path, monkeypatch):
    for layer in (nn.Dropout, nn.Dropout2d):
        monkeypatch.setattr(layer, "forward", lambda self, values: values)
    changes = (FULL_PRECISION, "recipe.optimizer=sgd", "recipe.momentum=0.5", "recipe.lr=0.01")
    found = script.train(small(tmp_path / "together", *changes), SEEDS)
    config = small(tmp_path / "single", *changes)
    alone = [run(dataclasses.replace(config, seed=seed)).record for seed in SEEDS]
    assert [record.device for record in found] == [DEVICE.type] * 3
    for ours, theirs in zip(histories(found), histories(alone), strict=True):
        for key in ("train_loss", "val_loss"):
            assert ours[key] == pytest.approx(theirs[key], rel=5e-3)


@cuda_only
@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.01), ("adam", 0.001)])
def test_a_graph_of_the_ensemble_is_its_step(script, tmp_path, monkeypatch, optimizer, lr):
    """With dropout, batch norm and augmentation; the learning rate is rounded in a graph."""
    replayed, capture = [], script.capture

    def counted(step, device):
        replay = capture(step, device)
        return lambda: (replayed.append(1), replay())

    monkeypatch.setattr(script, "capture", counted)
    changes = (FULL_PRECISION, f"recipe.optimizer={optimizer}", f"recipe.lr={lr}",
               "recipe.momentum=0", "data.limit=90")  # fmt: skip
    graphed, eager = (
        script.train(small(tmp_path / graph, *changes, f"runtime.graph={graph}"), SEEDS)
        for graph in ("auto", "none")
    )
    assert len(replayed) == 2 * 4  # 32 and 32 images in each of 4 epochs; 26 without graph
    for ours, theirs in zip(histories(graphed), histories(eager), strict=True):
        for key in ("train_loss", "val_loss"):
            assert ours[key] == pytest.approx(theirs[key], rel=5e-3)
