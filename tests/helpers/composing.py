"""Configurations, composed once in a process."""

import copy
import functools
from typing import Any

from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Config
from spinal_repro.config.validate import validate


@functools.cache
def composed(*overrides: str) -> Config:
    """A configuration, composed once in a process; it is frozen, so tests may share it."""
    return compose(overrides)


def changed(config: Config, settings: dict[str, Any]) -> Config:
    """The configuration with some settings (dotted keys) changed, validated again."""
    plain = copy.deepcopy(config.to_dict())
    for dotted, value in settings.items():
        *groups, key = dotted.split(".")
        node = plain
        for group in groups:
            node = node[group]
        node[key] = value
    return validate(plain)
