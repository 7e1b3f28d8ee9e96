"""The script that computes the features of frozen backbones once per image."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from helpers.composing import changed, composed
from torch import nn

from spinal_repro.models.classifier import Classifier
from spinal_repro.training.run import run

SCRIPTS = Path(__file__).parents[2] / "scripts"
SETTINGS = {"runtime.device": "cpu", "runtime.progress": "none", "recipe.epochs": 3}


@pytest.fixture
def script(monkeypatch):
    if not SCRIPTS.is_dir():
        pytest.skip("scripts/ is in the repository, not in the source archive")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(Classifier, "forward", Classifier.forward)  # restored afterwards
    yield importlib.import_module("cached_features")
    monkeypatch.delitem(sys.modules, "cached_features")


def test_runs_are_those_of_the_plain_command(script, tmp_path):
    def train(name, head):
        words = ["dataset=digits", "model=cnn", f"head={head}", "model.freeze=backbone"]
        settings = {**SETTINGS, "runs": str(tmp_path / name)}
        return run(changed(composed(*words, "protocol=heldout"), settings)).record

    plain = {head: train("plain", head) for head in ("linear", "fc")}
    features = script.install()
    for head, expected in plain.items():
        record = train("cached", head)
        assert record.test.last.correct == expected.test.last.correct
        for ours, theirs in zip(record.history, expected.history, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)
    assert 0 < len(features.rows) <= 1_438 + 359


def test_an_image_is_computed_once_for_each_backbone(script):
    class Counting(nn.Conv2d):
        computed = 0

        def forward(self, images):
            self.computed += len(images)
            return super().forward(images).flatten(1)

    features, images = script.Features(), torch.randn(6, 3, 5, 5)
    first, second = Counting(3, 2, 5), Counting(3, 2, 5)
    for part in ([0, 1], [1, 2, 0], [2, 3, 4, 5], [5, 4, 3, 2, 1, 0]):
        for backbone in (first, second):
            wanted = nn.Conv2d.forward(backbone, images[part]).flatten(1)
            torch.testing.assert_close(features(backbone, images[part]), wanted)
    assert first.computed == second.computed == len(images)
    copy = Counting(3, 2, 5)
    copy.load_state_dict(second.state_dict())
    features(copy, images)
    assert copy.computed == 0, "equal weights share features"
