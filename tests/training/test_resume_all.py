"""Stopped and continued, to the bit: every rule, augmentation, head and shipped recipe."""

import pytest
import torch
from stopping import interrupted, outcome, small
from torch import nn

from spinal_repro.backbones import BACKBONES
from spinal_repro.config import compose, config_dir
from spinal_repro.data.augment import AUGMENTATIONS
from spinal_repro.heads import HEADS
from spinal_repro.training.optim import LR_RULES
from spinal_repro.training.run import run

GREY = ["recipe.mean=[0.5]", "recipe.std=[0.5]"]  # of whatever the recipe's data set is
FC = ["head=fc", "head.hidden=[16]", "head.dropout=[0.3,0.3]"]
FEW = ["data.limit=24", "recipe.batch_size=8"]  # some are for large images
AT_28 = "recipe.prepare={train: {resize: 28}, eval: {resize: 28}}"
LARGER = "recipe.prepare={train: {resize: 32}, eval: {resize: 28}}"  # so that there is what to crop
RULES = {
    "constant": "name: {}",
    "redraw": "name: {}",
    "redraw_late": "name: {}, start: 1",
    "divide": "name: {}",
    "divide_at": "name: {}, epochs: [1, 2]",
    "step": "name: {}, step: 1",
}
WARPS = {
    "hflip": "name: {}",
    "vflip": "name: {}",
    "pad_crop": "name: {}, padding: 1",
    "crop": "name: {}, size: 28",
    "perspective": "name: {}",
    "rotation": "name: {}, degrees: 20",
    "affine": "name: {}, degrees: 5, translate: [0.1, 0.1]",
    "resized_crop": "name: {}, size: 28",
}
HEAD_OPTIONS = {
    "fc": ["head.hidden=[16, 12]", "head.dropout=[0.1, 0.2, 0.3]", "head.norm=true"],
    "spinal": ["head.width=8", "head.dropout=0.3", "head.norm=true"],
    "progressive": ["head.width=8", "head.layer_dropout=0.3", "head.norm=true"],
    "arch2": ["model=arch2", AT_28],
}
HEADS_MORE = {
    "linear": ["head=linear"],
    "spinal, shared": ["head=spinal", "head.width=8", "head.shared=true", "head.dropout=0.2"],
    "spinal, layers used again": ["head=spinal", "head.width=8", "+head.order=[1, 2, 2, 3, 2, 3]"],
    "spinal, its own last dropout": ["head=spinal", "head.width=8", "head.output_dropout=0.5"],
}
RECIPES = (
    "alexnet", "arch2", "cifar_cnn", "cifar_cnn_committed_fc", "cifar_cnn_committed_spinal", "cnn",
    "densenet", "finetune", "fixed_features", "inception_v3", "progressive", "progressive_transfer",
    "resnet18_thin", "vgg11_bn",
)  # fmt: skip  # one of each kind, see `kind_of`
OTHERS = {
    "on the test part": ["protocol=paper"],
    "the test part watched": ["protocol.watch_test=true"],
    "the head first": ["model.name=everything", "recipe.head_epochs=1"],
    "a frozen backbone": ["model.name=everything", "model.freeze=backbone"],
    "auxiliary outputs": ["model.name=everything", "recipe.label_smoothing=0.1"],
    "stages": ["recipe.stages={2: 0.05, 3: 0.01}"],
    "stages that forget": ["recipe.stages={2: 0.05}", "recipe.best_of_last_stage=true"],
    "bf16": ["model.name=everything", "runtime.precision=bf16", "runtime.self_check=false"],
    "deterministic": ["model.name=everything", "runtime.deterministic=true"],
}


class Everything(nn.Module):
    """Whatever a network can carry from step to step: dropout, running statistics, a side exit."""

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.2)
        )
        self.num_features = 4 * (image_size - 2) ** 2
        self.aux_features = [self.num_features]

    def forward(self, images):
        features = self.body(images).flatten(1)
        return (features, [features]) if self.training else features


@pytest.fixture(autouse=True)
def backbone(monkeypatch):
    monkeypatch.setitem(BACKBONES._items, "everything", Everything)


def kind_of(recipe: str) -> tuple[str, ...]:
    """What makes a shipped recipe another one than others: all but epochs, rates and sizes."""
    words = ["dataset=digits", "model=flatten", f"recipe={recipe}", *FC, *GREY]
    found = compose(words).recipe
    return (
        found.optimizer,
        str(sorted(map(str, found.lr_rule.items()))),
        f"momentum {found.momentum}",
        f"decay {found.weight_decay > 0}",
        f"smoothing {found.label_smoothing > 0}",
        str([augmentation["name"] for augmentation in found.augment]),
        str(sorted(found.prepare)),
    )


def check(tmp_path, monkeypatch, *overrides: str) -> None:
    """A run that was stopped in its first epoch and in its second is one that was not."""
    whole = run(small(tmp_path / "whole", *overrides))
    config = small(tmp_path / "parts", *overrides)
    for step in (2, 2):  # of the steps of a sitting: the 2nd of epoch 1, then the 1st of epoch 2
        torch.manual_seed(step)  # a new process starts with another random state
        interrupted(config, monkeypatch, step)
    parts = run(config)
    assert outcome(parts.folder, parts.record) == outcome(whole.folder, whole.record)


def test_none_is_forgotten():
    for registry, tried in ((LR_RULES, RULES), (AUGMENTATIONS, WARPS), (HEADS, HEAD_OPTIONS)):
        assert sorted(registry.names()) == sorted(tried)


@pytest.mark.parametrize("name", RULES)
def test_every_rule(tmp_path, monkeypatch, name):
    rule = f"recipe.lr_rule={{{RULES[name].format(name)}}}"
    check(tmp_path, monkeypatch, rule, "recipe.lr=0.01", *FC)


@pytest.mark.parametrize("name", WARPS)
def test_every_augmentation(tmp_path, monkeypatch, name):
    larger = [LARGER] if "size" in WARPS[name] else []
    check(tmp_path, monkeypatch, f"recipe.augment=[{{{WARPS[name].format(name)}}}]", *larger, *FC)


@pytest.mark.parametrize("name", HEAD_OPTIONS)
def test_every_head(tmp_path, monkeypatch, name):
    check(tmp_path, monkeypatch, f"head={name}", *HEAD_OPTIONS[name])


@pytest.mark.parametrize("what", HEADS_MORE)
def test_heads_with_other_options(tmp_path, monkeypatch, what):
    check(tmp_path, monkeypatch, *HEADS_MORE[what])


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_else_a_run_may_do(tmp_path, monkeypatch, what):
    check(tmp_path, monkeypatch, *FC, *OTHERS[what])


def test_no_recipe_is_forgotten():
    tried = {kind_of(name) for name in RECIPES}
    assert len(tried) == len(RECIPES)
    for path in (config_dir() / "recipe").glob("*.yaml"):
        assert kind_of(path.stem) in tried, path.stem


@pytest.mark.parametrize("name", RECIPES)
def test_every_kind_of_recipe(tmp_path, monkeypatch, name):
    check(tmp_path, monkeypatch, f"recipe={name}", *FC, *GREY, *FEW)
