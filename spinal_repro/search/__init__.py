"""Hyperparameter search by validation accuracy; no trial uses the test set."""

from spinal_repro.search.space import Space, load_space
from spinal_repro.search.study import Study

__all__ = ["Space", "Study", "load_space"]
