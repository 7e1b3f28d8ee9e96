"""What a search tries: options with their ranges, from a small YAML file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from spinal_repro.config.compose import compose, config_dir
from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError, unknown
from spinal_repro.registry import merge_onto

if TYPE_CHECKING:
    from optuna.trial import Trial

DIGITS = 4  # significant ones of a number that is drawn: a command line is for people
# what every trial has: the test part is not even given to it
HELD_OUT = ("protocol=heldout", "data.test=false")


@dataclass(frozen=True)
class Option:
    """One option: a range, whole if both of its ends are, or choices.

    Attributes:
        low: Lower end, tried as well.
        high: Upper end, tried as well.
        log: Whether ratios count, not differences.
        choices: Values without an order, instead of a range.
    """

    low: Any = None
    high: Any = None
    log: bool = False
    choices: list[Any] = field(default_factory=list)

    def draw(self, trial: "Trial", key: str) -> Any:
        """Let a trial suggest a value."""
        if self.choices:
            return trial.suggest_categorical(key, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        value = trial.suggest_float(key, float(self.low), float(self.high), log=self.log)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    @property
    def ends(self) -> list[Any]:
        """Values that must be possible."""
        return self.choices or [self.low, self.high]


@dataclass(frozen=True)
class Space:
    """A search: overrides of all its trials, and options by the keys of the command line."""

    overrides: list[str]
    options: dict[str, Option]

    def fixed(self, given: Sequence[str]) -> list[str]:
        """The overrides of all trials; those given come before the space's own.

        Raises:
            UserError: for an override of what is searched, or of how a search is run.
        """
        keys = {_key(override) for override in given}
        for override in given:
            key = _key(override)
            if key in self.options:
                raise UserError(f"{key} is searched; leave out {override}, or use another --space")
            if key.partition(".")[0] == "protocol" or key == "data.test":
                raise UserError(
                    f"a search runs under protocol=heldout and never reads the test part; "
                    f"leave out {override}"
                )
        return [*(o for o in self.overrides if _key(o) not in keys), *given]

    def check(self, fixed: Sequence[str]) -> Config:
        """Compose the two ends of every option, so that a mistake shows before the first trial.

        Returns:
            The configuration at the lower ends.

        Raises:
            UserError: for a key or value that does not exist.
        """
        first, last = (
            compose(trial_overrides(fixed, {k: o.ends[end] for k, o in self.options.items()}))
            for end in (0, -1)
        )
        assert not first.data.test and not last.data.test
        return first


def trial_overrides(fixed: Sequence[str], values: dict[str, Any]) -> list[str]:
    """The command line of one trial."""
    return [*fixed, *(f"{key}={value}" for key, value in values.items()), *HELD_OUT]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def load_space(name: str) -> Space:
    """Read a search.

    Args:
        name: Of a file in ``configs/search``, or the path of another one.

    Raises:
        UserError: where it is not there or not valid.
    """
    folder = config_dir() / "search"
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.exists():
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        raise unknown("search", name, known)
    try:
        plain = OmegaConf.to_container(OmegaConf.load(path))  # takes 1e-4 for a number
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(plain, dict):
        raise UserError(f"{path} must have overrides and options")
    top = merge_onto(_File, {str(key): value for key, value in plain.items()}, str(path))
    options = {}
    for key, node in top["options"].items():
        where = f"{path}: {key}"
        if not isinstance(node, dict):
            raise UserError(f"{where} must be {{low: ..., high: ...}} or {{choices: [...]}}")
        options[key] = _checked(Option(**merge_onto(Option, node, where)), where)
    if not options:
        raise UserError(f"{path} has no options: there is nothing to search")
    return Space(top["overrides"], options)


@dataclass(frozen=True)
class _File:
    """The schema of the file."""

    overrides: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


def _checked(option: Option, where: str) -> Option:
    ends = (option.low, option.high)
    numbers = all(isinstance(e, int | float) and not isinstance(e, bool) for e in ends)
    if bool(option.choices) == (ends != (None, None)) or (not option.choices and not numbers):
        raise UserError(f"{where} needs either numbers low and high, or choices")
    if not option.choices and (option.low > option.high or (option.log and option.low <= 0)):
        raise UserError(f"{where}: low must not be above high, and above 0 where log is true")
    return option
