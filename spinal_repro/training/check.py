"""Whether a configuration can be trained at all, found out without data, weights or a device."""

import dataclasses
from pathlib import Path

import torch

from spinal_repro.config.schema import Config
from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.folder import counted
from spinal_repro.models.classifier import build_model
from spinal_repro.training.optim import LR_RULES, build_optimizer


def check_parts(config: Config) -> None:
    """Build everything that a run is made of, on PyTorch's device without memory.

    Weights are not loaded, so a file or a name of weights that does not exist is not found out.
    Anyone's own folder of images is counted, since the classes come from there.
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
