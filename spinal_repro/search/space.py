"""Search spaces: hyperparameters and their ranges, read from a YAML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from yaml import YAMLError

from spinal_repro.config.compose import compose, config_dir
from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError, unknown

Option: TypeAlias = CategoricalDistribution | FloatDistribution | IntDistribution
DIGITS = 4  # significant digits of a float, which is part of a command line
HELD_OUT = ("protocol=heldout", "data.test=false")  # of every trial


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
        first, last = {}, {}
        for key, option in self.options.items():
            categorical = isinstance(option, CategoricalDistribution)
            ends = option.choices if categorical else (option.low, option.high)
            first[key], last[key] = ends[0], ends[-1]
        compose(trial_overrides(fixed, last))
        return compose(trial_overrides(fixed, first))


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
