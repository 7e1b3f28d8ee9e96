"""The jobs of a sweep, checked before the first one starts."""

import importlib.util
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from hydra.errors import HydraException

from spinal_repro.cli.overrides import override_words, parse_overrides
from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError

KEY = "hydra/launcher"
DEFAULT_LAUNCHER = "processes"
EXTRAS = {"submitit": "slurm", "slurm": "slurm", "joblib": "parallel"}  # by prefix of the name
PLUGINS = {"slurm": "hydra_submitit_launcher", "parallel": "hydra_joblib_launcher"}
Source = TypeVar("Source")


class JobError(Exception):
    """A job of a sweep did not finish."""


def launcher_of(arguments: Sequence[str]) -> str:
    """Find the launcher that a command line chooses; refuse one that is not installed."""
    found = [a.partition("=")[2] for a in arguments if a.lstrip("+").startswith(f"{KEY}=")]
    launcher = [DEFAULT_LAUNCHER, *found][-1]
    for beginning, extra in EXTRAS.items():
        plugin = f"hydra_plugins.{PLUGINS[extra]}"
        if launcher.startswith(beginning) and importlib.util.find_spec(plugin) is None:
            raise UserError(f"{KEY}={launcher} needs: pip install 'spinal-repro[{extra}]'")
    return launcher


def check_jobs(arguments: Sequence[str], extra_dirs: Sequence[Path] = ()) -> list[Config]:
    """Compose every job of a command line, and check them with `check_all`."""
    words = override_words(arguments)
    settings = [word for word in words if not word.lstrip("+~").startswith("hydra")]
    choices: dict[str, list[str]] = {}
    for override in parse_overrides(settings):
        key = override.get_key_element()
        choices[key] = [override.input_line or key]
        if override.is_sweep_override():
            try:
                choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            except HydraException:  # glob(...), interval(...)
                raise UserError(f"launchers need a list of values: {key}=A,B,C") from None
    jobs = [(" ".join(job), job) for job in itertools.product(*choices.values())]
    return check_all(jobs, lambda job: compose(job, *extra_dirs))


def check_all(
    jobs: Iterable[tuple[str, Source]], composed: Callable[[Source], Config]
) -> list[Config]:
    """Check every job (with its name) down to the shapes of its model, without data or device."""
    from spinal_repro.training.setup import check_parts

    configs, refused, checked = [], [], set()
    for name, job in jobs:
        try:
            config = composed(job)
            if config.identity() not in checked:  # a seed does not change the model's shapes
                check_parts(config)
                checked.add(config.identity())
            configs.append(config)
        except UserError as error:
            refused.append(f"{name}: {error}")
    if refused:
        raise UserError("no job was started: some cannot be run:\n  " + "\n  ".join(refused))
    if not configs:
        raise UserError("this sweep has no jobs: one of its lists or ranges is empty")
    return configs
