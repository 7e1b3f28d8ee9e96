"""Trackers: a run is reported to TensorBoard, MLflow or Weights & Biases.

Off unless ``tracker=`` chooses one. A tracker receives only data that the run records anyway;
nothing is read back, and a failing tracker never stops a run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class About:
    """Description of a run, given to its tracker at the start."""

    id: str  # 32 hex digits; the same when the run resumes
    name: str  # e.g. mnist-cnn-fc/heldout-0a1b2c3d/s0
    folder: Path
    runs: Path  # the folder of all runs
    config: Mapping[str, Any]
    epoch: int  # last epoch that was logged; 0 for none


class Tracker(Protocol):
    """One run in one tracker. All methods may raise anything; see `Tracking`."""

    library: ClassVar[str]  # must be installed; the extra has the tracker's name

    def start(self, about: About) -> None:
        """Open the tracker's run, or continue it."""

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Write the metrics of one epoch, flushed so that they survive a kill."""

    def artifact(self, path: Path) -> None:
        """Add a file: a PNG, or the record (JSON)."""

    def close(self, outcome: Mapping[str, float] | None) -> None:
        """End the tracker's run with its final metrics; None if it stopped early."""
