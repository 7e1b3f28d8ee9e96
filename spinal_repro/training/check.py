"""A check of a configuration before training, without data, weights or a device."""

import dataclasses
from pathlib import Path

import torch

from spinal_repro.config.schema import Config
from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.folder import counted
from spinal_repro.models.classifier import build_model
from spinal_repro.training.optim import LR_RULES, build_optimizer


def check_parts(config: Config) -> None:
    """Build model, optimizer, learning-rate rule and augmentations on the meta device.

    Weights are not loaded: a wrong file or name of weights is found when the run starts. The
    user's own folder of images is read for its classes.
    """
    options = {key: value for key, value in config.model.options.items() if key != "pretrained"}
    component = dataclasses.replace(config.model, options=options)
    dataset = counted(config.dataset, Path(config.data.root))
    with torch.device("meta"):
        model = build_model(
            dataset, component, config.head, config.seed, image_size=config.input_size
        )
    build_optimizer(config.recipe, model.parameters())
    rule = dict(config.recipe.lr_rule)
    LR_RULES.build(str(rule.pop("name", "")), rule)
    build_augmentations(config.recipe.augment)
