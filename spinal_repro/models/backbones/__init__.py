"""Backbones: images ``[N, C, H, W]`` to features ``[N, D]``. They know nothing of heads.

A backbone is a module with ``num_features`` (D), built as
``constructor(channels, image_size, **options)`` and registered under a name. Every file of this
folder is imported the first time a backbone is asked for, so a new file is all that a new
family needs.
"""

import importlib
import pkgutil
from functools import cache

from torch import nn

from spinal_repro.registry import Registry

BACKBONES: Registry[nn.Module] = Registry("model")


@cache
def load_backbones() -> Registry[nn.Module]:
    """The registry with every family of this folder in it."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return BACKBONES
