"""MLflow: a local database or a server."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from spinal_repro.config.schema import leaves
from spinal_repro.trackers import TRACKERS, About

FOLDER = ".mlflow"  # in the runs folder
TAG = "spinal.id"
MAX_CHARACTERS = 6000  # MLflow's limit of a parameter


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
        import mlflow
        from mlflow.entities import Param

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        uri, artifacts = self._uri or os.environ.get("MLFLOW_TRACKING_URI"), None
        if not uri:
            folder = (about.runs / FOLDER).resolve()
            folder.mkdir(parents=True, exist_ok=True)
            uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        with suppress(mlflow.MlflowException):  # it exists, or another process creates it now
            self._client.create_experiment(self._experiment_name, artifacts)
        experiment = self._client.get_experiment_by_name(self._experiment_name).experiment_id
        found = self._client.search_runs([experiment], f"tags.\"{TAG}\" = '{about.id}'")
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        created = self._client.create_run(experiment, run_name=about.name, tags={TAG: about.id})
        self._run = created.info.run_id
        params = [Param(key, str(v)[:MAX_CHARACTERS]) for key, v in leaves(about.config)]
        self._client.log_batch(self._run, params=params)

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
