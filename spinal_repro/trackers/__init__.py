"""Trackers: a run is reported to TensorBoard, MLflow or Weights & Biases.

Off unless ``tracker=`` chooses one. A tracker only gets what the run records anyway; nothing is
read back, and a tracker that fails never stops a run.
"""

from spinal_repro.trackers.base import TRACKERS, About, Tracker

__all__ = ["TRACKERS", "About", "Tracker"]
