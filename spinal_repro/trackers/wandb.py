"""Weights & Biases, offline unless asked otherwise."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from spinal_repro.errors import UserError
from spinal_repro.trackers.base import TRACKERS, About

MODES = ("offline", "online")


@TRACKERS.register("wandb")
class WeightsAndBiases:
    """Figures by epoch, configuration, summary; figures and record among the run's files.

    Offline, every part of a continued run is a folder of its own under one id: ``wandb sync`` of
    all of them makes one run.

    Args:
        mode: ``offline`` writes files into the run folder and connects to nothing.
        project: Under which all runs are listed.
        entity: The account or team; your own unless given.
    """

    library: ClassVar[str] = "wandb"

    def __init__(
        self, *, mode: str = "offline", project: str = "spinal", entity: str | None = None
    ) -> None:
        if mode not in MODES:
            raise UserError(f"tracker.mode must be one of {', '.join(MODES)}, got {mode}")
        self._mode: Any = mode  # a literal, to wandb
        self._project, self._entity = project, entity

    def start(self, about: About) -> None:
        """Open a run of the id, with nothing collected but what it is told."""
        if self._mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would go over the network
        import wandb

        self._run = wandb.init(
            mode=self._mode,
            id=about.id,
            resume="allow" if self._mode == "online" else None,
            name=about.name,
            project=self._project,
            entity=self._entity,
            dir=str(about.folder),
            config=dict(about.config),
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_disable_stats=True,
                x_disable_meta=True,
                x_save_requirements=False,
            ),
        )

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """One row of the history."""
        self._run.log(dict(figures), step=epoch, commit=True)  # else it waits for the next

    def artifact(self, path: Path) -> None:
        """A copy among the run's files; a PNG as an image too."""
        import wandb

        if path.suffix == ".png":
            self._run.summary[path.stem] = wandb.Image(str(path))
        copy = shutil.copy(path, self._run.dir)  # else it would be a link to what may be moved
        self._run.save(str(copy), base_path=self._run.dir, policy="now")

    def close(self, outcome: Mapping[str, float] | None) -> None:
        """The outcome becomes the summary."""
        self._run.summary.update(dict(outcome or {}))
        self._run.finish(exit_code=1 if outcome is None else 0)
