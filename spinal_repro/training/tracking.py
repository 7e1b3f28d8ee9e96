"""Telling a tracker about a run, whatever the tracker does.

The run folder's ``tracker.json`` holds, for each tracker that was used, the id of its run and the
last epoch it was told. A run that continues, also with another tracker, tells what is missing.
"""

import contextlib
import importlib
import importlib.util
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from spinal_repro.config.schema import Component, Config
from spinal_repro.errors import UserError
from spinal_repro.io import read_json, write_json
from spinal_repro.records.record import Record
from spinal_repro.registry import Registry
from spinal_repro.trackers.base import TRACKERS, About, Tracker
from spinal_repro.trackers.figures import draw_history
from spinal_repro.training.engine import Callback, Run

NONE, MEMORY, CURVE = "none", "tracker.json", "curve.png"


@cache
def load_trackers() -> Registry[Tracker]:
    """The registry with all trackers in it; none of their libraries is imported."""
    for module in ("tensorboard", "mlflow", "wandb"):
        importlib.import_module(f"spinal_repro.trackers.{module}")
    return TRACKERS


def check_tracker(component: Component) -> Tracker | None:
    """Build a tracker without starting it.

    Returns:
        The tracker; None for ``tracker=none``.

    Raises:
        UserError: for a name or option that does not exist, or a library that is not installed.
    """
    if component.name == NONE:
        return None
    tracker = load_trackers().build(component.name, component.options)
    if importlib.util.find_spec(tracker.library) is None:
        raise UserError(
            f"tracker={component.name} needs a library that is not installed; install it with "
            f"pip install 'spinal-repro[{component.name}]', or train without: tracker=none"
        )
    return tracker


class Tracking(Callback):
    """Context in which one run tells its tracker how it goes.

    The first call that fails is said once and is the last one; training never notices.

    Args:
        config: The resolved configuration, with the tracker in it.
        folder: The run folder.
        warn: Takes one line for people.
    """

    def __init__(self, config: Config, folder: Path, warn: Callable[[str], None]) -> None:
        self._tracker = check_tracker(config.tracker)
        self._name, self._config, self._folder = config.tracker.name, config, folder
        self._warn = warn
        self._outcome: dict[str, float] | None = None
        self._memory: dict[str, Any] = {}

    def __enter__(self) -> "Tracking":
        self._safely(self._start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._safely(lambda tracker: tracker.close(self._outcome))

    def on_epoch_end(self, run: Run, is_best: bool) -> None:
        """Log the epochs that the tracker does not have, oldest first."""
        self._log(run.state.history, run.state.timing)

    def _log(self, history: list[dict[str, Any]], timing: list[dict[str, Any]]) -> None:

        def echo(tracker: Tracker) -> None:
            for entry, times in zip(history, timing, strict=True):
                if entry["epoch"] > self._memory["epoch"]:
                    tracker.log(entry["epoch"], _numbers({**entry, **times}))
                    self._memory["epoch"] = entry["epoch"]
                    self._remember()

        self._safely(echo)

    def finish(self, record: Record, path: Path) -> None:
        """Hand over the record and a picture of the history.

        Args:
            record: Of the finished run.
            path: Its file.
        """
        self._log(record.history, record.timing)  # a run that stopped after training

        def hand_over(tracker: Tracker) -> None:
            with contextlib.suppress(ImportError):  # without matplotlib there is no picture
                title = f"{record.run}, seed {record.seed}"
                tracker.artifact(draw_history(record.history, title, self._folder / CURVE))
            tracker.artifact(path)
            self._outcome = outcome(record)

        self._safely(hand_over)

    def _start(self, tracker: Tracker) -> None:
        path = self._folder / MEMORY
        everything = read_json(path) if path.is_file() else {}
        self._memory = everything.get(self._name) or {"id": uuid.uuid4().hex, "epoch": 0}
        self._remember()
        about = About(
            id=self._memory["id"],
            name="/".join(self._config.run_dir.parts[-3:]),
            folder=self._folder,
            runs=Path(self._config.runs),
            config=self._config.to_dict(),
            epoch=self._memory["epoch"],
        )
        tracker.start(about)

    def _remember(self) -> None:
        path = self._folder / MEMORY
        everything = read_json(path) if path.is_file() else {}
        write_json(path, {**everything, self._name: self._memory})

    def _safely(self, call: Callable[[Tracker], None]) -> None:
        """Call with the tracker; the first error ends tracking and nothing else."""
        tracker = self._tracker
        if tracker is None:
            return
        try:
            call(tracker)
        except Exception as error:
            self._tracker = None
            with contextlib.suppress(Exception):  # let it put away what it can
                tracker.close(None)
            first = (str(error).strip() or "no message").splitlines()[0]
            self._warn(
                f"warning: tracker {self._name} failed ({type(error).__name__}: {first}); "
                f"the run goes on without it"
            )


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in entry.items() if key != "epoch"}


def outcome(record: Record) -> dict[str, float]:
    """The figures that a finished run is judged by: shares in [0, 1], counts, seconds."""
    selection, test = record.selection, record.test
    found: dict[str, float] = {
        "selected_epoch": selection.epoch,
        f"selected_{selection.on}_accuracy": selection.accuracy,
        "total_parameters": record.counts["total_parameters"],
        "head_parameters": record.counts["head_parameters"],
        "wall_seconds": record.wall_seconds,
    }
    if test is not None:
        found["test_accuracy_last"] = test.last.accuracy
        found["test_accuracy_selected"] = test.selected.accuracy
        if test.best_on_test is not None:
            found["test_accuracy_best_on_test"] = test.best_on_test.accuracy
    return {key: float(value) for key, value in found.items()}
