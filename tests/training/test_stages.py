"""Stages: best weights, a fresh optimizer, a new learning rate; published validation parts."""

import dataclasses

import pytest
import torch
from helpers.composing import composed

from spinal_repro.data.sources import Dataset, ImageSet, load_dataset
from spinal_repro.training import setup as builder
from spinal_repro.training.engine import Run, fit
from spinal_repro.training.setup import build_run

BASE = ["data.limit=120", "runtime.progress=none", "runtime.device=cpu", "head=spinal"]
CPU = torch.device("cpu")


def trained(epochs: int, *overrides: str) -> Run:
    run = build_run(composed(*BASE, f"recipe.epochs={epochs}", *overrides), CPU).run
    fit(run)
    return run


def test_a_stage_starts_with_its_rate_from_the_best_weights():
    """The second one ruins the net; the third, whose rate changes nothing, equals the first."""
    run = trained(3, "recipe.lr=0.005", "recipe.stages={2: 3.0, 3: 1e-30}")
    assert [entry["lr"] for entry in run.state.history] == [0.005, 3.0, 1e-30]
    correct = [entry["val_correct"] for entry in run.state.history]
    assert correct[1] < correct[0] == correct[2]
    steps = {int(s["step"]) for s in run.optimizer.state.values()}
    assert steps == {len(run.train)}  # Adam has counted the last stage's one epoch only


def test_the_step_rule_starts_again_in_each_stage():
    rule = ["recipe.lr_rule.name=step", "+recipe.lr_rule.step=2", "recipe.optimizer=sgd"]
    run = trained(7, "recipe.stages={4: 0.01}", "recipe.lr=1.0", *rule)
    rates = [entry["lr"] for entry in run.state.history]
    assert rates == pytest.approx([1, 1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("last_stage", [False, True])
def test_selection_over_stages(last_stage):
    """A second stage that ruins the net is selected only if earlier ones are left out."""
    stages = ("recipe.stages={4: 3.0}", f"recipe.best_of_last_stage={last_stage}")
    run = trained(5, "recipe.lr=0.005", *stages)
    correct = [entry["val_correct"] for entry in run.state.history]
    assert max(correct[:3]) > max(correct[3:])
    assert run.state.best_epoch == (
        4 + correct[3:].index(max(correct[3:])) if last_stage else 1 + correct.index(max(correct))
    )


def with_val(config, root, download, test):
    """The digits with a third of the test part as a published validation part."""
    whole = load_dataset(config, root, download)
    cut = len(whole.test) // 3

    def part(rows):
        return ImageSet(whole.test.images[rows], whole.test.labels[rows])

    return Dataset(whole.train, part(slice(cut, None)), val=part(slice(cut)))


def test_a_published_validation_part_selects(monkeypatch):
    monkeypatch.setattr(builder, "load_dataset", with_val)
    config = composed("runtime.progress=none")
    setup = build_run(config, CPU)
    whole = load_dataset(config.dataset, "unused")
    assert setup.run.train.num_images == len(whole.train)  # nothing is cut from train
    assert setup.data["published_val"] and setup.data["sizes"]["val"] == len(whole.test) // 3
    assert torch.equal(setup.run.select.labels, whole.test.labels[: len(whole.test) // 3])

    paper = build_run(composed("protocol=paper"), CPU)
    assert paper.data["sizes"]["val"] == 0 and paper.run.select is paper.test


def test_training_and_evaluation_must_agree_on_the_size():
    config = composed(*BASE, "model=flatten", "recipe.augment=[{name: crop, size: 20}]")
    with pytest.raises(ValueError, match=r"trains on images of 20 px and evaluates on .* 28 px"):
        build_run(config, CPU)
    prepare = {"train": {"resize": [32, 32]}, "eval": {"resize": 20, "crop": 20}}
    recipe = dataclasses.replace(config.recipe, prepare=prepare)
    setup = build_run(dataclasses.replace(config, recipe=recipe), CPU)
    images, _ = next(setup.run.train.epoch(0, 1, setup.run.augmentations))
    assert images.shape[-2:] == (20, 20) == next(setup.test.in_order())[0].shape[-2:]
