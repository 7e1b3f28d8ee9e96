"""The identity of a run, its folder, and its round trip through plain containers."""

import dataclasses
import json
from pathlib import Path

import pytest
from helpers.composing import changed, composed
from omegaconf import OmegaConf

from spinal_repro.config.schema import Config, RecipeConfig
from spinal_repro.config.validate import validate


@pytest.fixture
def mnist() -> Config:
    return composed("dataset=mnist", "model=cnn", "head=spinal")


FREE = {
    "data.root": "/elsewhere", "data.download": True, "runs": "/elsewhere", "runtime.threads": 2,
    "runtime.jobs": 4, "runtime.time_limit": 90.0, "runtime.progress": "none",
    "runtime.save_every": 0.0, "runtime.debug": "nonfinite", "dataset.title": "Digits",
    "recipe.name": "renamed", "recipe.published_epochs": None, "seed": 5,
}  # fmt: skip
COUNTED = {
    "recipe.lr": 0.02, "recipe.epochs": 9, "recipe.lr_rule": {"name": "redraw"},
    "recipe.augment": [{"name": "rotation", "degrees": 10}], "recipe.stages": {2: 0.1},
    "recipe.prepare": {"eval": {"resize": 30, "crop": 28}}, "recipe.label_smoothing": 0.1,
    "head.width": 9, "head.name": "fc", "model.name": "flatten", "dataset.num_outputs": 12,
    "dataset.options": {"split": "digits"}, "protocol.split_seed": 1, "protocol.val_fraction": 0.2,
    "protocol.watch_test": True, "runtime.precision": "bf16", "runtime.device": "cpu",
    "runtime.compile": True, "runtime.graph": "auto", "runtime.deterministic": True,
    "data.limit": 100, "data.test": False,
}  # fmt: skip


def test_the_identity_depends_on_what_can_change_a_result_and_nothing_else(mnist):
    for key, value in FREE.items():
        other = changed(mnist, {key: value})
        assert other != mnist and other.identity() == mnist.identity(), key
    others = [changed(mnist, {key: value}) for key, value in COUNTED.items()]
    assert len({mnist.identity(), *(o.identity() for o in others)}) == 1 + len(COUNTED)
    assert len({mnist.run_dir, *(o.run_dir for o in others)}) == 1 + len(COUNTED)


def test_a_new_setting_changes_no_identity_until_it_is_set(mnist):
    more = [("warmup", int, 0)]
    newer = dataclasses.make_dataclass("Newer", more, bases=(RecipeConfig,), frozen=True)
    with_default = dataclasses.replace(mnist, recipe=newer(**vars(mnist.recipe)))
    assert with_default.identity() == mnist.identity()
    recipe = dataclasses.replace(with_default.recipe, warmup=1)
    assert dataclasses.replace(mnist, recipe=recipe).identity() != mnist.identity()


@pytest.mark.parametrize(
    ("device", "precision"),
    [("cpu", "fp32"), ("mps", "fp32"), ("cuda", "tf32"), ("cuda:1", "tf32")],
)
def test_the_device_decides_what_precision_auto_is(mnist, device, precision):
    """The run is the same as one that names that precision, and keeps its device."""
    auto = changed(mnist, {"runtime.device": device})
    assert auto.runtime.precision == precision and auto.runtime.device == device
    named = changed(mnist, {"runtime.device": device, "runtime.precision": precision})
    assert auto.identity() == named.identity()


def test_the_run_folder_has_cell_protocol_identity_and_seed(mnist):
    folder = changed(mnist, {"runs": "/some/runs", "seed": 3}).run_dir
    assert folder == Path("/some/runs/mnist-cnn-spinal", f"heldout-{mnist.identity()}", "s3")


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("dataset=cinic10", "model=torchvision", "recipe=transfer", "protocol=paper"),
        ("dataset=emnist_letters_62", "head=spinal", "tracker=tensorboard"),
    ],
    ids=str,
)
def test_round_trip_through_plain_containers_json_and_yaml(overrides):
    config = composed(*overrides)
    plain = config.to_dict()
    for again in (
        validate(plain),
        validate(json.loads(json.dumps(plain))),
        validate(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(plain)))),
    ):
        assert again == config and again.identity() == config.identity()


@pytest.mark.parametrize(
    "settings, reasons",
    [
        ({"recipe.epochs": 20}, []),
        ({"recipe.epochs": 7, "data.limit": 9}, ["7 of 8 epochs", "at most 9 images per split"]),
        ({"recipe.epochs": 1, "recipe.published_epochs": None}, []),
    ],
)
def test_a_reduced_budget_says_why(mnist, settings, reasons):
    assert changed(mnist, settings).reduced_budget == reasons
