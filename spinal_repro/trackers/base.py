"""What every tracker can do, and which there are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from spinal_repro.registry import Registry


@dataclass(frozen=True)
class About:
    """What a tracker is told of a run when it starts.

    Attributes:
        id: 32 hex digits; the same whenever the run continues.
        name: For people, e.g. ``mnist-cnn-fc/heldout-0a1b2c3d/s0``.
        folder: The run folder.
        runs: The folder of all runs.
        config: The resolved configuration as plain containers.
        epoch: The last epoch that the tracker has been told; 0 for none.
    """

    id: str
    name: str
    folder: Path
    runs: Path
    config: Mapping[str, Any]
    epoch: int


class Tracker(Protocol):
    """One run of one tracker. Its methods may raise anything: see `tracking`.

    Attributes:
        library: What must be installed; the extra of this package has the tracker's name.
    """

    library: ClassVar[str]

    def start(self, about: About) -> None:
        """Open the tracker's run, or open it again where it stopped."""

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Write down the figures of one epoch, in such a way that a killed run keeps them."""

    def artifact(self, path: Path) -> None:
        """Add a file: a PNG, or the record (JSON)."""

    def close(self, outcome: Mapping[str, float] | None) -> None:
        """End the tracker's run.

        Args:
            outcome: Figures of the finished run; None where it stopped before its end.
        """


TRACKERS: Registry[Tracker] = Registry("tracker")


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, as on the command line."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
