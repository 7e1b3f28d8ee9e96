"""Searching options on the held-out part; no trial ever reads the test part."""

from spinal_repro.search.space import Space, load_space
from spinal_repro.search.study import Study

__all__ = ["Space", "Study", "load_space"]
