"""The trackers. Each imports its library when a run starts."""

import json
import logging
import os
import shutil
import textwrap
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar

from spinal_repro.config.schema import leaves
from spinal_repro.errors import one_of
from spinal_repro.io import exclusive_lock
from spinal_repro.registry import Registry
from spinal_repro.trackers import About, Tracker

TRACKERS: Registry[Tracker] = Registry("tracker")
SQLITE = "sqlite:///"
TAG = "spinal.id"  # of a run in MLflow
# Weights & Biases collects only the data of `log`, `artifact` and `close`
SETTINGS = {
    "console": "off", "silent": True, "save_code": False, "x_save_requirements": False,
    "disable_git": True, "disable_code": True, "x_disable_stats": True, "x_disable_meta": True,
}  # fmt: skip


@TRACKERS.register("tensorboard")
class TensorBoard:
    """Scalars by epoch; configuration and record as text, the plot as an image."""

    library: ClassVar[str] = "tensorboard"

    def start(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._step = about.epoch
        first = about.epoch + 1 if about.epoch else 0  # readers ignore later epochs of other files
        self._writer = SummaryWriter(str(about.folder / "tensorboard"), purge_step=first)
        if first == 0:
            self._text("config", dict(about.config))
            self._writer.flush()

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        self._step = epoch
        for name, value in figures.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def artifact(self, path: Path) -> None:
        if path.suffix == ".png":
            import numpy as np
            from PIL import Image

            pixels = np.asarray(Image.open(path).convert("RGB"))
            self._writer.add_image(path.stem, pixels, self._step, dataformats="HWC")
        else:
            self._text(path.stem, json.loads(path.read_text()))

    def close(self, outcome: Mapping[str, float] | None) -> None:
        self.log(self._step, outcome or {})
        self._writer.close()

    def _text(self, name: str, value: object) -> None:
        text = textwrap.indent(json.dumps(value, indent=1), "    ")  # a code block in Markdown
        self._writer.add_text(name, text, self._step)


@TRACKERS.register("mlflow")
class MLflow:
    """Metrics by epoch, settings as parameters, plot and record as artifacts.

    Args:
        uri: The store; None for ``MLFLOW_TRACKING_URI``, or else a database in the runs folder.
    """

    library: ClassVar[str] = "mlflow"

    def __init__(self, *, uri: str | None = None, experiment: str = "spinal") -> None:
        self._uri, self._experiment_name = uri, experiment

    def start(self, about: About) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities import Param

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI")
        folder = (about.runs / ".mlflow").resolve()
        artifacts = None if uri else (folder / "artifacts").as_uri()
        uri = uri or f"{SQLITE}{folder / 'mlflow.db'}"
        # two processes that create the tables of one database at once destroy it, as does Ctrl-C
        database = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
        if database:
            database.parent.mkdir(parents=True, exist_ok=True)
        lock = database and exclusive_lock(database.with_suffix(".lock"), f"opening {uri}")
        with lock or nullcontext():
            if database and not database.exists():
                partial = database.with_suffix(".partial")
                partial.unlink(missing_ok=True)
                self._open(f"{SQLITE}{partial}", artifacts)
                partial.rename(database)
            experiment = self._open(uri, artifacts)
        found = self._client.search_runs([experiment], f"tags.\"{TAG}\" = '{about.id}'")
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        created = self._client.create_run(experiment, run_name=about.name, tags={TAG: about.id})
        self._run = created.info.run_id
        params = [Param(key, str(v)[:6000]) for key, v in leaves(about.config)]  # MLflow's limit
        self._client.log_batch(self._run, params=params)

    def _open(self, uri: str, artifacts: str | None) -> str:
        """Connect to a store; return the id of the experiment, which is created if it is new."""
        import mlflow

        self._client = mlflow.MlflowClient(tracking_uri=uri)
        with suppress(mlflow.MlflowException):  # it exists
            self._client.create_experiment(self._experiment_name, artifacts)
        return str(self._client.get_experiment_by_name(self._experiment_name).experiment_id)

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        # with the epoch as time, a metric that is logged twice is stored once
        metrics = [Metric(name, value, epoch, epoch) for name, value in figures.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def artifact(self, path: Path) -> None:
        self._client.log_artifact(self._run, str(path))

    def close(self, outcome: Mapping[str, float] | None) -> None:
        for name, value in (outcome or {}).items():
            self._client.log_metric(self._run, name, value)
        self._client.set_terminated(self._run, "KILLED" if outcome is None else "FINISHED")


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
