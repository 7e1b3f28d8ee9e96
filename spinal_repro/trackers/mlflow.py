"""MLflow: a local database or a server."""

import logging
import os
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import ClassVar

from spinal_repro.config.schema import leaves
from spinal_repro.io import exclusive_lock
from spinal_repro.trackers import TRACKERS, About

FOLDER, LOCK = ".mlflow", ".mlflow.lock"  # in the runs folder
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
        from mlflow.entities import Param

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI")
        folder = (about.runs / FOLDER).resolve()
        database = folder / "mlflow.db"
        artifacts = None if uri else (folder / "artifacts").as_uri()
        uri = uri or f"sqlite:///{database}"
        # two processes that create the tables of one database at once destroy it, as does Ctrl-C
        lock = exclusive_lock(about.runs / LOCK, f"opening the MLflow store {uri}")
        with nullcontext() if uri.startswith("http") else lock:
            if artifacts and not database.exists():
                folder.mkdir(exist_ok=True)
                partial = database.with_suffix(".partial")
                partial.unlink(missing_ok=True)
                self._open(f"sqlite:///{partial}", artifacts)
                partial.rename(database)
            experiment = self._open(uri, artifacts)
        found = self._client.search_runs([experiment], f"tags.\"{TAG}\" = '{about.id}'")
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        created = self._client.create_run(experiment, run_name=about.name, tags={TAG: about.id})
        self._run = created.info.run_id
        params = [Param(key, str(v)[:MAX_CHARACTERS]) for key, v in leaves(about.config)]
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
