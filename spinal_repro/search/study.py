"""Trials of a search, in a journal file shared by processes and machines.

A trial is a run that does not use the test set; its value is the validation accuracy of its
selected epoch.
"""

import os
import socket
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from spinal_repro.config.compose import compose
from spinal_repro.errors import UserError
from spinal_repro.records.store import error_details
from spinal_repro.search.space import Space, trial_overrides
from spinal_repro.training.run import run

# overrides that may differ between the machines of a study
LOCAL = ("runs", "runtime", "tracker", "data.root", "data.download")
FAILURES = 3  # a process stops after so many, unless a trial of the study is complete


class Study:
    """An Optuna study of runs, which share the overrides in ``fixed``.

    Args:
        journal: File shared by all processes; the runs are stored in its folder.
    """

    def __init__(self, journal: Path, name: str, space: Space, fixed: Sequence[str]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._fixed, self._folder = space, list(fixed), journal.parent
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._study = optuna.create_study(
                    study_name=name,
                    storage=JournalStorage(JournalFileBackend(str(journal))),
                    sampler=optuna.samplers.TPESampler(constant_liar=True),  # for parallel trials
                    direction="maximize",
                    load_if_exists=True,
                )
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"the journal {journal} cannot be used: {error}") from error
        shared = [o for o in fixed if not o.lstrip("+~").startswith(LOCAL)]
        search = {"overrides": shared, "options": str(space.options)}
        if (before := self._study.user_attrs.get("search", search)) != search:
            raise UserError(
                f"study {name} in {journal} is another search ({before}); use another --study"
            )
        self._study.set_user_attr("search", search)

    def run(self, trials: int, echo: Callable[[str], None], take_over: bool = False) -> None:
        """Run trials until the study has this many: running, finished and failed ones of all.

        Args:
            take_over: Also requeue the unfinished trials of other machines.
        """
        self._repeat_lost_trials(take_over)
        failures = 0
        while self.counts["waiting"] or self.counts.total() < trials:
            trial = self._study.ask(self._space.options)
            trial.set_user_attr("host", socket.gethostname())
            trial.set_user_attr("pid", os.getpid())
            error = self._run_trial(trial, echo)
            failures += error is not None
            if failures == FAILURES and not self.counts["complete"]:
                raise UserError(f"{FAILURES} trials failed and none is complete: {error}")

    def _run_trial(self, trial: Trial, echo: Callable[[str], None]) -> str | None:
        """Run one trial; returns the message of its error, if it failed."""
        values = self._space.values(trial.params)
        trial.set_user_attr("values", values)
        shown = " ".join(f"{key}={value}" for key, value in values.items())
        overrides = [o for o in trial_overrides(self._fixed, values) if not o.startswith("runs=")]
        try:
            record = run(compose([*overrides, f"runs={self._folder}"])).record
        except Exception as error:
            message = error_details(error)["message"]
            trial.set_user_attr("error", message)
            self._study.tell(trial, state=TrialState.FAIL)
            echo(f"trial {trial.number} failed: {shown}: {message}")
            return message
        accuracy = record.selection.accuracy
        trial.set_user_attr("images", record.data["sizes"]["val"])
        self._study.tell(trial, accuracy)
        echo(f"trial {trial.number}: validation accuracy {100 * accuracy:.2f} %: {shown}")
        return None

    def _repeat_lost_trials(self, take_over: bool) -> None:
        """Queue the trials whose processes have died; their runs resume from checkpoints."""
        for trial in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            host, pid = trial.user_attrs.get("host"), trial.user_attrs.get("pid")
            if take_over if host != socket.gethostname() else not _is_alive(pid):
                with suppress(ValueError, RuntimeError):  # another process was faster
                    self._study.tell(trial.number, state=TrialState.FAIL)
                    self._study.enqueue_trial(trial.params)

    @property
    def counts(self) -> Counter[str]:
        """Number of trials by state: ``complete``, ``fail``, ``running``, ``waiting``."""
        fail, trials = TrialState.FAIL, self._study.get_trials(deepcopy=False)
        repeated = [t for t in trials if t.state == fail and "error" not in t.user_attrs]
        return Counter(t.state.name.lower() for t in trials if t not in repeated)

    @property
    def best(self) -> FrozenTrial | None:
        """First trial with the highest validation accuracy; None if no trial is complete.

        Its ``user_attrs`` have the ``values`` and the number of validation ``images``.
        """
        complete = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # of another user
        return True
    except (OSError, TypeError):
        return False
    return True
