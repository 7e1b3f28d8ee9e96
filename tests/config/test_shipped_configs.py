"""Every file under configs/ is composed into its group, has an effect, and can be trained."""

import pytest
import torch
from helpers.composing import changed
from omegaconf import OmegaConf

from spinal_repro.config.compose import choices, compose_raw, find_choice
from spinal_repro.config.validate import validate
from spinal_repro.data.augment import build_augmentations
from spinal_repro.training.setup import check_parts

GROUPS = (
    "dataset", "model", "head", "head/for", "recipe", "recipe/on", "protocol", "runtime", "tracker",
)  # fmt: skip
GENERAL = ("model", "head", "recipe")  # head/for and recipe/on may override these
MODELS, DATASETS = choices("model"), choices("dataset")
# smallest images that a network takes; others take 32 px
SIZES = {
    "alexnet": 64, "googlenet": 64, "cnn": 28, "vgg5": 28, "flatten": 28, "arch2": 28, "lenet5": 28,
    "inception_v3": 299, "inception_v4": 96, "inception_resnet_v2": 96,
}  # fmt: skip


def choices_of(group: str, name: str) -> list[str]:
    """The overrides that bring a choice into the composition, read off its place and name."""
    if group == "recipe/on":
        dataset = next(d for d in sorted(DATASETS, key=len)[::-1] if name.startswith(f"{d}_"))
        return [*choices_of("recipe", name.removeprefix(f"{dataset}_")), f"dataset={dataset}"]
    if group == "head/for":
        model, head = name.rsplit("_", 1)
        return [f"model={model}", f"head={head}"]
    if group == "recipe":  # with its namesake, or with a model whose weights say what they expect
        model = [f"model={name}"] if name in MODELS else ["model=torchvision", "dataset=cifar10"]
        model += ["model.freeze=backbone"] * (name == "features")  # refused without
        return [f"recipe={name}", *model]
    if name == "arch2":  # its head reads the outputs of one backbone
        return ["model=arch2", "head=arch2"]
    if name == "pretrained":  # weights are not loaded, only named
        options = ["model.pretrained=IMAGENET1K_V1", "dataset.num_outputs=1000"]
        return ["model=resnet18", "head=pretrained", *options]
    return [f"{group}={name}"]


@pytest.mark.parametrize("group, name", [(g, name) for g in GROUPS for name in choices(g)])
def test_a_choice_has_an_effect_and_can_be_trained(group, name):
    raw = compose_raw(choices_of(group, name))
    composed = OmegaConf.to_container(raw[group.partition("/")[0]])
    own = {k: v for k, v in find_choice(group, name)[1].items() if k != "defaults"}
    assert own or group in ("head/for", "recipe/on"), "a file without a setting"
    for key, value in own.items():
        assert key in composed
        assert group in GENERAL or composed[key] == value or isinstance(value, dict), key
    config = validate(raw)
    if group in ("protocol", "tracker"):
        assert composed["name"] == name
    assert config.reduced_budget == []
    few: dict[str, object] = {}
    if config.dataset.num_classes is None:  # counted in the user's own folder
        few = {"dataset.num_classes": 10, "dataset.source": "digits"}
    model = config.model.name
    if config.dataset.image_size is not None and not config.recipe.prepare:
        few["dataset.image_size"] = SIZES.get(model, 64 if model.startswith("vgg_") else 32)
    if model.startswith(("resnet18_thin", "resnet34_thin", "cifar_cnn", "densenet", "tutorial_")):
        few["dataset.channels"] = 3
    config = changed(config, few)
    if group != "model":  # tests/models/test_every_model.py builds each with both heads
        check_parts(config)
    size = config.preprocessing("train").size
    for augmentation in build_augmentations(config.recipe.augment):
        augmentation.draw(2, size, torch.Generator())
        size = augmentation.size_after(size)
    assert size == config.input_size
