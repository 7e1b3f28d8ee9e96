"""Reports a run to a tracker, whose failures never stop the run.

The run folder's ``tracker.json`` holds, for each tracker used, the id of its run, the last epoch
that it has, and its error if it failed. A resumed run, also with another tracker, reports the
missing epochs.
"""

import contextlib
import importlib.util
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from spinal_repro.config.schema import Component, Config
from spinal_repro.errors import UserError
from spinal_repro.io import read_json, write_json
from spinal_repro.records.plots import CONFUSION, CURVES
from spinal_repro.records.record import Record
from spinal_repro.trackers import About, Tracker
from spinal_repro.trackers.libraries import TRACKERS
from spinal_repro.training.engine import Callback, Run, State

NONE, MEMORY = "none", "tracker.json"


def check_tracker(component: Component) -> Tracker | None:
    """Build a tracker without starting it; None for ``tracker=none``."""
    if component.name == NONE:
        return None
    tracker = TRACKERS.build(component.name, component.options)
    if importlib.util.find_spec(tracker.library) is None:
        raise UserError(
            f"tracker={component.name} needs: pip install 'spinal-repro[{component.name}]'"
        )
    return tracker


class Tracking(Callback):
    """Context that reports one run to its tracker.

    The first call that fails prints a warning through ``warn`` and ends tracking, not training.
    """

    def __init__(self, config: Config, folder: Path, warn: Callable[[str], None]) -> None:
        self._tracker, self._name = check_tracker(config.tracker), config.tracker.name
        self._config, self._folder, self._warn = config, folder, warn
        self._outcome: dict[str, float] | None = None

    def __enter__(self) -> Self:
        self._safely(self._start)
        return self

    def __exit__(self, *error: object) -> None:
        self._safely(lambda tracker: tracker.close(self._outcome))

    def on_epoch_end(self, run: Run, is_best: bool) -> None:
        """Log the epochs that the tracker does not have, oldest first."""
        self._safely(lambda tracker: self._log(tracker, run.state))

    def finish(self, record: Record, path: Path) -> None:
        """Hand over the record of the finished run, its file and its plots."""
        self._safely(lambda tracker: self._finish(tracker, record, path))

    def _start(self, tracker: Tracker) -> None:
        path, config = self._folder / MEMORY, self._config
        self._known: dict[str, Any] = read_json(path) if path.is_file() else {}  # by tracker
        self._memory = self._known.setdefault(self._name, {"id": uuid.uuid4().hex, "epoch": 0})
        self._memory.pop("error", None)
        self._remember()
        about = About(
            name="/".join(config.run_dir.parts[-3:]),
            folder=self._folder,
            runs=Path(config.runs),
            config=config.to_dict(),
            **self._memory,
        )
        tracker.start(about)

    def _log(self, tracker: Tracker, of: State | Record) -> None:
        for entry, times in zip(of.history, of.timing, strict=True):
            figures = {key: float(value) for key, value in (entry | times).items()}
            epoch = int(figures.pop("epoch"))
            if epoch > self._memory["epoch"]:
                tracker.log(epoch, figures)
                self._memory["epoch"] = epoch
                self._remember()

    def _finish(self, tracker: Tracker, record: Record, path: Path) -> None:
        self._log(tracker, record)  # if it stopped after training
        for plot in (self._folder / CURVES, self._folder / CONFUSION):
            if plot.is_file():
                tracker.artifact(plot)
        tracker.artifact(path)
        self._outcome = outcome(record)

    def _remember(self) -> None:
        write_json(self._folder / MEMORY, self._known)

    def _safely(self, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:
            with contextlib.suppress(Exception):
                self._tracker.close(None)
            self._tracker = None
            first = (str(error).strip() or "no message").splitlines()[0]
            why = f"tracker {self._name} failed ({type(error).__name__}: {first})"
            self._warn(f"warning: {why}; the run continues without it")
            with contextlib.suppress(Exception):
                self._memory["error"] = why
                self._remember()


def tracker_error(config: Config) -> str:
    """Say why the tracker of a run lacks some of it; empty if it has all."""
    try:
        return str(read_json(config.run_dir / MEMORY)[config.tracker.name]["error"])
    except (UserError, KeyError):
        return ""


def outcome(record: Record) -> dict[str, float]:
    """Collect the summary metrics of a finished run: accuracies in [0, 1], counts, seconds."""
    selection = record.selection
    found: dict[str, float] = {
        "selected_epoch": selection.epoch,
        f"selected_{selection.on}_accuracy": selection.accuracy,
        **{key: record.counts[key] for key in ("total_parameters", "head_parameters")},
        "wall_seconds": record.wall_seconds,
    }
    for name in ("last", "selected", "best_on_test"):
        if (tested := getattr(record.test, name, None)) is not None:
            found[f"test_accuracy_{name}"] = tested.accuracy
            for metric, value in (getattr(tested, "metrics", None) or {}).items():
                found[f"test_{metric}_{name}"] = value
    return {key: float(value) for key, value in found.items()}
