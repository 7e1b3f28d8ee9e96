"""MLflow: a local store without a server, or a server of your own."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from spinal_repro.trackers.base import TRACKERS, About, flat

FOLDER = ".mlflow"  # in the folder of runs
TAG = "spinal.id"
LONGEST = 6000  # characters of a parameter that MLflow takes
BATCH = 100  # parameters that it takes at once


@TRACKERS.register("mlflow")
class MLflow:
    """Metrics by epoch, settings as parameters, figures and record as artifacts.

    Args:
        uri: The store; ``MLFLOW_TRACKING_URI`` unless given, else a database in the folder of runs.
        experiment: Under which all runs are listed.
    """

    library: ClassVar[str] = "mlflow"

    def __init__(self, *, uri: str | None = None, experiment: str = "spinal") -> None:
        self._uri, self._experiment_name = uri, experiment

    def start(self, about: About) -> None:
        """Find the run by its tag, or create it."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a local store stays local
        import mlflow
        from mlflow.entities import Param

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        uri, artifacts = self._uri or os.environ.get("MLFLOW_TRACKING_URI"), None
        if not uri:
            place = (about.runs / FOLDER).resolve()
            place.mkdir(parents=True, exist_ok=True)
            uri, artifacts = f"sqlite:///{place / 'mlflow.db'}", (place / "artifacts").as_uri()
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = self._experiment(artifacts)
        found = self._client.search_runs([experiment], f"tags.\"{TAG}\" = '{about.id}'")
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            created = self._client.create_run(experiment, run_name=about.name, tags={TAG: about.id})
            self._run = created.info.run_id
            settings = flat(about.config).items()
            params = [Param(key, str(value)[:LONGEST]) for key, value in settings]
            for start in range(0, len(params), BATCH):
                self._client.log_batch(self._run, params=params[start : start + BATCH])
        self._told: dict[str, set[int]] = {}

    def _experiment(self, artifacts: str | None) -> str:
        """The id of the experiment, which another process may create at the same moment."""
        for attempt in range(2):
            found = self._client.get_experiment_by_name(self._experiment_name)
            if found is not None:
                return str(found.experiment_id)
            try:
                return str(self._client.create_experiment(self._experiment_name, artifacts))
            except Exception:
                if attempt:
                    raise
        raise AssertionError

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """One metric a figure, unless the store has it."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, timestamp=epoch, step=epoch)  # wall time is in the record
            for name, value in figures.items()
            if epoch not in self._steps(name)
        ]
        if metrics:
            self._client.log_batch(self._run, metrics=metrics)

    def _steps(self, name: str) -> set[int]:
        """Epochs of a metric that the store had when this process first asked."""
        if name not in self._told:
            known: Any = self._client.get_metric_history(self._run, name)
            self._told[name] = {metric.step for metric in known}
        return self._told[name]

    def artifact(self, path: Path) -> None:
        """A copy of the file."""
        self._client.log_artifact(self._run, str(path))

    def close(self, outcome: Mapping[str, float] | None) -> None:
        """Finished, or killed where there is no outcome."""
        for name, value in (outcome or {}).items():
            self._client.log_metric(self._run, name, value)
        self._client.set_terminated(self._run, "KILLED" if outcome is None else "FINISHED")
