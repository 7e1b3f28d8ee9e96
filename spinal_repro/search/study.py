"""The trials of a search, in a journal that several processes and machines write together.

A trial is an ordinary run that does not read the test part; its value is the validation accuracy of
its selected epoch. A trial whose process is gone is issued again with the same options and goes on
from its checkpoint.
"""

import os
import socket
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError
from spinal_repro.records.store import is_alive
from spinal_repro.search.space import Space, trial_overrides

if TYPE_CHECKING:
    import optuna

AGAIN = "again"  # attribute of a trial: the number of the lost one that it repeats
SURPLUS = "surplus"  # of one that another process made superfluous while it was asked for
# Overrides that may differ between the machines of a study
LOCAL = ("runs", "runtime", "tracker", "data.root", "data.download")
NAMELESS = timedelta(minutes=10)  # a process has this long to sign the trial that it asked for
FAILURES = 3  # in a row and from the start: something is wrong with all of them


@dataclass(frozen=True)
class Best:
    """The best trial: its number, validation accuracy, images and the options it chose."""

    number: int
    accuracy: float
    images: int
    values: dict[str, Any]


class Study:
    """A search that goes on until it has so many trials.

    Args:
        journal: The file shared by all processes.
        name: Of the study in it.
        space: What is tried.
        fixed: Overrides of all trials.

    Raises:
        UserError: where optuna is missing, the journal cannot be used, or holds another search.
    """

    def __init__(self, journal: Path, name: str, space: Space, fixed: Sequence[str]) -> None:
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ImportError as error:
            raise UserError("a search needs optuna: pip install 'spinal-repro[hpo]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._fixed, self._folder = space, list(fixed), journal.parent
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._study = optuna.create_study(
                    study_name=name,
                    storage=JournalStorage(JournalFileBackend(str(journal))),
                    sampler=optuna.samplers.TPESampler(constant_liar=True),  # others are at work
                    direction="maximize",
                    load_if_exists=True,
                )
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"the journal {journal} cannot be used: {error}") from error
        shared = [o for o in fixed if not o.lstrip("+~").startswith(LOCAL)]
        options = {key: vars(option) for key, option in space.options.items()}
        for key, value in {"overrides": shared, "options": options}.items():
            if self._study.user_attrs.setdefault(key, value) != value:
                raise UserError(
                    f"study {name} in {journal} has other {key} ({self._study.user_attrs[key]}); "
                    f"choose another --study, or give it the same"
                )
            if key not in self._study.user_attrs:
                self._study.set_user_attr(key, value)

    def run(self, trials: int, say: Callable[[str], None], take_over: bool = False) -> None:
        """Run trials until the study has so many, those of other processes counted.

        Args:
            trials: How many; trials that failed count.
            say: Takes a line a trial.
            take_over: Also repeat what other machines have not finished.

        Raises:
            UserError: where the first trials all fail.
        """
        failures: int | None = 0  # None once a trial has gone well
        while True:
            self._issue_lost_ones_again(take_over)
            waiting = any(t.state.name == "WAITING" for t in self._all())
            if not waiting and len(self._counted()) >= trials:
                return
            trial = self._study.ask()
            trial.set_user_attr("host", socket.gethostname())
            trial.set_user_attr("pid", os.getpid())
            if sum(t.number < trial.number for t in self._counted()) >= trials:
                trial.set_user_attr(SURPLUS, True)
                self._study.echo(trial, state=_state("FAIL"))
                return
            why = self._one(trial, say)
            if why is None:
                failures = None
            elif failures is not None:
                failures += 1
                if failures == FAILURES:
                    raise UserError(f"the first {FAILURES} trials all failed, the last: {why}")

    def _one(self, trial: "optuna.Trial", say: Callable[[str], None]) -> str | None:
        """Run one trial and tell how it went.

        Returns:
            Why it failed, if it did.
        """
        from spinal_repro.training.run import run

        values = {key: option.draw(trial, key) for key, option in self._space.options.items()}
        trial.set_user_attr("values", values)
        shown = " ".join(f"{key}={value}" for key, value in values.items())
        try:
            record = run(self._config(values)).record
        except Exception as error:
            why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            trial.set_user_attr("why", why)
            self._study.echo(trial, state=_state("FAIL"))
            say(f"trial {trial.number} failed: {shown}: {why}")
            return why
        assert record.test is None and record.selection.on == "val"
        accuracy = record.selection.accuracy
        trial.set_user_attr("images", record.data["sizes"]["val"])
        self._study.echo(trial, accuracy)
        say(f"trial {trial.number}: validation accuracy {100 * accuracy:.2f} %: {shown}")
        return None

    def _config(self, values: dict[str, Any]) -> Config:
        """The configuration of a trial; its run lies beside the journal."""
        overrides = [o for o in trial_overrides(self._fixed, values) if not o.startswith("runs=")]
        return compose([*overrides, f"runs={self._folder}"])

    def _issue_lost_ones_again(self, take_over: bool) -> None:
        """Put trials back into the queue whose processes are gone."""
        for lost in self._all():
            if lost.state.name != "RUNNING" or not _is_lost(lost, take_over):
                continue
            try:
                self._study.echo(lost.number, state=_state("FAIL"))
            except (ValueError, RuntimeError):  # another process was faster
                continue
            self._study.enqueue_trial(lost.params, user_attrs={AGAIN: lost.number})

    def _all(self) -> "list[optuna.trial.FrozenTrial]":
        return self._study.get_trials(deepcopy=False)

    def _counted(self) -> "list[optuna.trial.FrozenTrial]":
        """Trials that count: all but the lost ones that were issued again, and superfluous ones."""
        everything = self._all()
        repeated = {t.user_attrs.get(AGAIN) for t in everything}
        return [t for t in everything if t.number not in repeated and not t.user_attrs.get(SURPLUS)]

    @property
    def counts(self) -> dict[str, int]:
        """Trials by state: ``complete``, ``fail``, ``running``, ``waiting``."""
        states = [t.state.name.lower() for t in self._counted()]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    @property
    def best(self) -> Best | None:
        """The trial with the highest validation accuracy, the first of equal ones."""
        done = [t for t in self._all() if t.state.name == "COMPLETE"]
        if not done:
            return None
        best = max(done, key=lambda t: (t.value, -t.number))
        assert best.value is not None
        attributes = best.user_attrs
        return Best(best.number, best.value, attributes["images"], attributes["values"])


def _is_lost(trial: "optuna.trial.FrozenTrial", take_over: bool) -> bool:
    """Whether nobody works on a trial any more, as far as this machine can know."""
    host, pid = trial.user_attrs.get("host"), trial.user_attrs.get("pid")
    if host is None or pid is None:
        assert trial.datetime_start is not None
        return datetime.now() - trial.datetime_start > NAMELESS
    return not is_alive({"pid": pid}) if host == socket.gethostname() else take_over


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]
