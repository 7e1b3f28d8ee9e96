"""A check of a configuration before training, without data, weights or a device."""

from pathlib import Path

from spinal_repro.config.schema import Config
from spinal_repro.data.augment import build_augmentations
from spinal_repro.data.folder import counted
from spinal_repro.models.classifier import build_blank
from spinal_repro.training.optim import LR_RULES, build_optimizer


def check_parts(config: Config) -> None:
    """Build model, optimizer, learning-rate rule and augmentations on the meta device.

    Weights are not loaded: a wrong file or name of weights is found when the run starts. The
    user's own folder of images is read for its classes.
    """
    dataset = counted(config.dataset, Path(config.data.root))
    model = build_blank(dataset, config.model, config.head, config.input_size)
    build_optimizer(config.recipe, model.parameters())
    rule = dict(config.recipe.lr_rule)
    LR_RULES.build(str(rule.pop("name", "")), rule)
    build_augmentations(config.recipe.augment)
