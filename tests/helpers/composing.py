"""Configurations, composed once in a process."""

import functools

from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Config


@functools.cache
def composed(*overrides: str) -> Config:
    """A configuration, composed once in a process; it is frozen, so tests may share it."""
    return compose(overrides)
