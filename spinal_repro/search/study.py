"""Search spaces, and the trials of a search in a journal file that processes can share.

A trial is a run that does not use the test set; its value is the validation accuracy of its
selected epoch.
"""

import os
import socket
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import optuna
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from yaml import YAMLError

from spinal_repro.config.compose import compose, config_dir
from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError, unknown
from spinal_repro.io import BusyError
from spinal_repro.records.store import error_details
from spinal_repro.training.run import run
from spinal_repro.training.setup import check_parts

Option: TypeAlias = CategoricalDistribution | FloatDistribution | IntDistribution
# overrides that may differ between the machines of a study
LOCAL = ("runs", "runtime", "tracker", "data.root", "data.download")
DIGITS = 4  # significant digits of a float, which is part of a command line
HELD_OUT = ("protocol=heldout", "data.test=false")  # of every trial
PAUSE = 5.0  # seconds between looks at a run that another process trains
FAILURES = 3  # a process stops after so many, unless a trial of the study is complete


@dataclass(frozen=True)
class Space:
    """Overrides of all trials, and hyperparameters by key."""

    overrides: list[str]
    options: dict[str, Option]

    def fixed(self, given: Sequence[str]) -> list[str]:
        """Merge the space's overrides with given ones, which take precedence."""
        keys = {_key(override): override for override in given}
        for key, override in keys.items():
            if key in self.options:
                raise UserError(f"{key} is searched; remove {override}, or use another --space")
            if key.partition(".")[0] == "protocol" or key == "data.test":
                raise UserError(
                    f"a search uses protocol=heldout and never reads the test set; "
                    f"remove {override}"
                )
        return [*(o for o in self.overrides if _key(o) not in keys), *given]

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a trial's parameters with floats rounded within their range."""
        found = dict(params)
        for key, option in self.options.items():
            if isinstance(option, FloatDistribution):
                rounded = float(f"{params[key]:.{DIGITS}g}")
                found[key] = min(max(rounded, option.low), option.high)
        return found

    def check(self, fixed: Sequence[str]) -> Config:
        """Compose with both ends of every range, to find errors before the first trial."""
        ends: dict[str, Sequence[Any]] = {
            key: o.choices if isinstance(o, CategoricalDistribution) else (o.low, o.high)
            for key, o in self.options.items()
        }
        for end in (-1, 0):
            config = compose(trial_overrides(fixed, {key: of[end] for key, of in ends.items()}))
            check_parts(config)
        return config


def trial_overrides(fixed: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """Overrides of one trial."""
    return [*fixed, *(f"{key}={value}" for key, value in values.items()), *HELD_OUT]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def load_space(name: str) -> Space:
    """Read a space, by its name in ``configs/search`` or by a path."""
    folder = config_dir() / "search"
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.exists():
        raise unknown("search space", name, [path.stem for path in folder.glob("*.yaml")])
    key = "the file"
    try:
        plain: Any = OmegaConf.to_container(OmegaConf.load(path))  # reads 1e-4 as a number
        options = {}
        for key, range_ in plain["options"].items():
            options[key] = _option(**range_)
        return Space(list(plain.get("overrides", ())), options)
    except (OSError, KeyError, TypeError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{path} is not a search space, see configs/search/default.yaml: {key}: {error}"
        ) from error


def _option(
    low: Any = None, high: Any = None, *, log: bool = False, choices: Sequence[Any] | None = None
) -> Option:
    if choices is not None and low is high is None:
        return CategoricalDistribution(choices)
    if choices is not None or not all(type(end) in (int, float) for end in (low, high)):
        raise ValueError("needs numbers low and high, or choices")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


class Study:
    """An Optuna study of runs, in the folder of its journal file.

    Args:
        fixed: Overrides of every run.
        inputs: Hashes of the images and weights that the overrides name; see `DataConfig`.
    """

    def __init__(
        self,
        journal: Path,
        name: str,
        space: Space,
        fixed: Sequence[str],
        inputs: Mapping[str, str],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self._space, self._fixed, self._folder = space, list(fixed), journal.parent
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
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
        search = {"overrides": shared, "options": str(space.options)} | dict(inputs)
        if (before := self._study.user_attrs.get("search", search)) != search:
            raise UserError(
                f"study {name} in {journal} is another search ({before}); use another --study"
            )
        self._study.set_user_attr("search", search)

    def run(self, trials: int, echo: Callable[[str], None], take_over: bool = False) -> None:
        """Run trials until the study has this many: running, finished and failed ones of all.

        With ``take_over`` first requeue the unfinished trials of other machines too.
        """
        self._repeat_lost_trials(take_over)
        failures, message = 0, ""
        while self.counts["waiting"] or self.counts.total() < trials:
            trial = self._study.ask(self._space.options)
            values = self._space.values(trial.params)
            about = {"values": values, "pid": os.getpid(), "host": socket.gethostname()}
            for key, value in about.items():  # the host last: a trial with a host has a pid
                trial.set_user_attr(key, value)
            shown = " ".join(f"{key}={value}" for key, value in values.items())
            try:
                accuracy = self._run_trial(trial)
            except Exception as error:
                message = error_details(error)["message"]
                trial.set_user_attr("error", message)
                self._study.tell(trial, state=TrialState.FAIL)
                echo(f"trial {trial.number} failed: {shown}: {message}")
                failures += 1
            else:
                self._study.tell(trial, accuracy)
                echo(f"trial {trial.number}: validation accuracy {100 * accuracy:.2f} %: {shown}")
            if failures == FAILURES and not self.counts["complete"]:
                raise UserError(f"{FAILURES} trials failed and none is complete: {message}")

    def _run_trial(self, trial: Trial) -> float:
        overrides = trial_overrides(self._fixed, trial.user_attrs["values"])
        own = [override for override in overrides if not override.startswith("runs=")]
        config = compose([*own, f"runs={self._folder}"])
        while True:
            try:
                record = run(config).record
                break
            except BusyError:  # another process tries the same options
                time.sleep(PAUSE)
        trial.set_user_attr("images", record.data["sizes"]["val"])
        return record.selection.accuracy

    def _repeat_lost_trials(self, take_over: bool) -> None:
        """Queue the trials whose processes have died; their runs resume from checkpoints."""
        for trial in self._study.get_trials(states=[TrialState.RUNNING]):
            host, pid = trial.user_attrs.get("host"), trial.user_attrs.get("pid")
            if take_over if host != socket.gethostname() else not _is_alive(pid):
                with suppress(ValueError, RuntimeError):  # another process was faster
                    self._study.tell(trial.number, state=TrialState.FAIL)
                    self._study.enqueue_trial(trial.params)

    @property
    def counts(self) -> Counter[str]:
        """Number of trials by state: ``complete``, ``fail``, ``running``, ``waiting``."""
        trials = self._study.get_trials()  # one that failed without an error was repeated
        counted = (t for t in trials if t.state != TrialState.FAIL or "error" in t.user_attrs)
        return Counter(trial.state.name.lower() for trial in counted)

    @property
    def best(self) -> FrozenTrial | None:
        """First trial with the highest validation accuracy; None if no trial is complete."""
        complete = self._study.get_trials(states=[TrialState.COMPLETE])
        return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # of another user
        return True
    except OSError:
        return False
    return True
