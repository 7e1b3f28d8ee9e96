"""Every file under configs/ is composed into its group, has an effect, and can be trained."""

from pathlib import Path

import pytest
import torch
from helpers.composing import changed
from omegaconf import DictConfig, OmegaConf

from spinal_repro.config.compose import choices, compose_raw, config_dir, find_choice
from spinal_repro.config.schema import Config
from spinal_repro.config.validate import validate
from spinal_repro.data.augment import build_augmentations
from spinal_repro.training.check import check_parts

GROUPS = (
    "dataset", "model", "head", "head/for", "recipe", "recipe/on", "protocol", "runtime", "tracker",
)  # fmt: skip
MODELS, DATASETS = choices("model"), choices("dataset")
SIZES = {"alexnet": 64, "vgg_a": 64, "googlenet": 64, "cnn": 28, "vgg5": 28, "flatten": 28, "arch2": 28}
LARGE = {"inception_v3": 299, "inception_v4": 96, "inception_resnet_v2": 96}
COLOUR = {"transfer", "transfer_vit", "progressive_transfer"}  # normalised by three constants


def choices_of(group: str, name: str) -> list[str]:
    """The overrides that bring a choice into the composition, read off its place and name."""
    if group == "recipe/on":
        dataset = next(d for d in sorted(DATASETS, key=len)[::-1] if name.startswith(f"{d}_"))
        return [f"dataset={dataset}", *choices_of("recipe", name.removeprefix(f"{dataset}_"))]
    if group == "head/for":
        model, head = name.rsplit("_", 1)
        return [f"model={model}", f"head={head}"]
    if group == "recipe":
        model = [f"model={name}"] if name in MODELS else ["model=torchvision", "dataset=cifar10"]
        return [f"recipe={name}", *model]
    if name == "arch2":  # its head reads the taps of one backbone
        return ["model=arch2", "head=arch2"]
    return [f"{group}={name}"]
