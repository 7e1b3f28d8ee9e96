"""Every file under configs/ is composed into what it is meant for, and that trains a few steps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from spinal_repro.config.compose import compose_raw, config_dir, validate
from spinal_repro.config.schema import Config, DatasetConfig
from spinal_repro.data.sources import Dataset, ImageSet
from spinal_repro.training import setup as builder
from spinal_repro.training.engine import evaluate, train_one_epoch

FILES = sorted(path.relative_to(config_dir()) for path in config_dir().rglob("*.yaml"))
OTHERS = ("paper", "claims", "search", "hydra")  # not composed into a run
COMPOSED = [file for file in FILES if file.parts[0] not in OTHERS]
MODELS = [path.stem for path in FILES if path.parent == Path("model")]
DATASETS = [path.stem for path in FILES if path.parent == Path("dataset")]
# smallest images that a network takes; what is not named takes 32 px
SIZES = {"alexnet": 64, "googlenet": 64, "cnn": 28, "vgg5": 28, "flatten": 28, "arch2": 28}
# too large to train here; tests/backbones/ runs them on the meta device
LARGE = (
    "inception_v3", "inception_v4", "inception_resnet_v2", "resnet101", "resnet152", "senet154",
    "wide_resnet50_2", "wide_resnet101_2", "vgg11", "vgg13", "vgg16", "vgg19", "vgg_a_lrn",
    "vgg_c", "vgg13_bn", "vgg16_bn", "vgg19_bn", "alexnet", "resnet50", "seresnet50",
)  # fmt: skip
IMAGES = 8


def model_for(recipe: str) -> list[str]:
    """A model that a recipe can train: its namesake, or one whose weights say what they expect."""
    if recipe in MODELS:
        return [f"model={recipe}"]
    return ["model=torchvision"] if recipe in ("sgd", "finetune", "fixed_features") else []


def choices_of(file: Path) -> list[str]:
    """The choices that bring a file into the composition, read off its place and name."""
    group, name = file.parent.as_posix(), file.stem
    if group == ".":
        return []
    if group == "model/pool":
        return ["model=resnet18_thin", {"quadrants": "head=spinal", "whole": "head=fc"}[name]]
    if group in ("head/for/on", "recipe/on"):
        dataset = next(d for d in sorted(DATASETS, key=len)[::-1] if name.startswith(f"{d}_"))
        rest = name.removeprefix(f"{dataset}_")
        if group == "recipe/on":
            return [f"dataset={dataset}", f"recipe={rest}", *model_for(rest)]
        model, head = rest.rsplit("_", 1)
        return [f"dataset={dataset}", f"model={model}", f"head={head}"]
    if group == "head/for":
        model, head = name.rsplit("_", 1)
        return [f"model={model}", f"head={head}"]
    if group == "recipe":
        colour = ["dataset=stl10"] if "transfer" in name else []  # normalised by three constants
        return [f"recipe={name}", *colour, *model_for(name)]
    if name == "arch2" and group == "head":  # reads the taps of one backbone
        return ["model=arch2", "head=arch2"]
    return [f"{group}={name}"]


def leaves(node: object, prefix: str = "") -> dict[str, object]:
    by_epoch = isinstance(node, dict) and node and all(isinstance(key, int) for key in node)
    if not isinstance(node, dict) or by_epoch:  # stages are one setting
        return {prefix: node}
    return {
        k: v for key, value in node.items() for k, v in leaves(value, f"{prefix}.{key}").items()
    }


def check_that_settings_have_an_effect(file: Path, composed: DictConfig) -> None:
    section = composed[file.parts[0]] if len(file.parts) > 1 else composed
    own = OmegaConf.to_container(OmegaConf.load(config_dir() / file))
    assert isinstance(own, dict) and isinstance(section, DictConfig)
    general = file.parent.as_posix() in ("head", "recipe", "model")  # overlays may override these
    for key, value in leaves({k: v for k, v in own.items() if k != "defaults"}).items():
        if key.startswith(".hydra") or "${" in str(value):
            continue
        found = OmegaConf.select(section, key.removeprefix("."))
        found = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
        assert general or found == value, f"{key} of {file} has no effect"


def fake(config: DatasetConfig, root: str, download: bool, test: bool) -> Dataset:
    """A few random images of the data set's shape, with labels of all its outputs."""
    generator = torch.Generator().manual_seed(0)
    shape = (IMAGES, config.channels, config.image_size, config.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.arange(IMAGES) // 2 % config.num_classes  # two of each, for a stratified split
    return Dataset(ImageSet(images, labels), ImageSet(images.flip(0), labels))


def shortened(composed: DictConfig, config: Config) -> Config:
    """The configuration for one epoch on a few small images."""
    changes: dict[str, Any] = {"recipe.epochs": 1, "recipe.batch_size": 4}
    model = config.model.name
    if not config.recipe.prepare or config.dataset.image_size is None:
        changes["dataset.image_size"] = SIZES.get(model, 32)
    if config.dataset.num_classes is None:  # counted in a folder of anyone's images
        changes["dataset.num_classes"] = 2
    constants = config.recipe.mean or [0.0] * (1 if model in SIZES and model != "alexnet" else 3)
    if len(constants) == 3 or config.model.kind:
        changes["dataset.channels"] = 3
    OmegaConf.set_struct(composed, False)
    for key, value in changes.items():
        OmegaConf.update(composed, key, value)
    return validate(composed)


@pytest.mark.parametrize("file", COMPOSED, ids=str)
def test_a_shipped_file_has_an_effect_and_trains(file, monkeypatch):
    composed = compose_raw(choices_of(file))
    check_that_settings_have_an_effect(file, composed)
    config = validate(composed)
    if config.model.name in LARGE:
        return  # tests/backbones runs its shapes
    monkeypatch.setattr(builder, "load_dataset", fake)
    run = builder.build_run(shortened(composed, config), torch.device("cpu")).run
    losses, correct, _ = train_one_epoch(run, 1)
    assert all(loss > 0 for loss in losses) and 0 <= correct <= IMAGES
    assert evaluate(run.model, run.select, run.autocast).count > 0
