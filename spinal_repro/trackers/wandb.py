"""Weights & Biases, offline by default."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from spinal_repro.errors import one_of
from spinal_repro.trackers import TRACKERS, About

# collect only the data of `log`, `artifact` and `close`
SETTINGS = {
    "console": "off", "silent": True, "save_code": False, "x_save_requirements": False,
    "disable_git": True, "disable_code": True, "x_disable_stats": True, "x_disable_meta": True,
}  # fmt: skip


@TRACKERS.register("wandb")
class WeightsAndBiases:
    """Figures by epoch, configuration and summary; plot and record among the run's files.

    Offline, each session of a resumed run has its own folder with the same id; ``wandb sync`` of
    all folders gives one run.

    Args:
        mode: ``offline`` writes files into the run folder and connects to nothing; ``online``.
        entity: The account or team; None for your own.
    """

    library: ClassVar[str] = "wandb"

    def __init__(
        self, *, mode: str = "offline", project: str = "spinal", entity: str | None = None
    ) -> None:
        one_of("tracker.mode", mode, ("offline", "online"))
        self._where: dict[str, Any] = {"mode": mode, "project": project, "entity": entity}
        if mode == "online":
            self._where["resume"] = "allow"

    def start(self, about: About) -> None:
        if self._where["mode"] == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would use the network
        import wandb

        self._run = wandb.init(
            **self._where,
            id=about.id,
            name=about.name,
            dir=str(about.folder),
            config=dict(about.config),
            reinit="create_new",
            settings=wandb.Settings(**SETTINGS),
        )

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=epoch, commit=True)

    def artifact(self, path: Path) -> None:
        import wandb

        if path.suffix == ".png":
            self._run.summary[path.stem] = wandb.Image(str(path))
        copy = shutil.copy(path, self._run.dir)  # wandb would link to the run folder
        self._run.save(str(copy), base_path=self._run.dir, policy="now")

    def close(self, outcome: Mapping[str, float] | None) -> None:
        self._run.summary.update(dict(outcome or {}))
        self._run.finish(exit_code=1 if outcome is None else 0)
