"""Hydra's loader of configuration, which takes no orders from folders of others.

Hydra calls what its own settings name (callbacks, launchers, handlers of logging), so whoever sets
those runs code. On the command line they are the user's own; in files of ``--config-dir`` or
``hydra.searchpath`` they could be anybody's. Files can reach them in more ways than can be listed,
so what is looked at is where each file's content ends up once Hydra has worked that out, before it
is merged and long before Hydra acts on it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

from spinal_repro.errors import UserError
from spinal_repro.text import printable

GIVEN = ("command-line", "hydra.searchpath")  # how Hydra names its sources that are not ours
FILE = "file://"
_HYDRA: Any = import_module("hydra._internal.hydra")  # makes its loader by this name


class GuardedLoader(ConfigLoaderImpl):
    """Refuses files from outside, and foreign files that set up Hydra unless they were asked for.

    A file in a folder's own ``hydra/`` is asked for where the command line names it, unless it has
    the name of a launcher or the like that is installed and would be read in its place.
    """

    def _load_configuration_impl(
        self, config_name: str | None, overrides: list[str], *arguments: Any, **options: Any
    ) -> DictConfig:
        self._asked = _chosen(overrides)
        return super()._load_configuration_impl(config_name, overrides, *arguments, **options)

    def _compose_config_from_defaults_list(
        self, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        asked = set(self._asked)
        while more := {d.config_path for d in defaults if d.parent in asked} - asked:
            asked |= more
        for default in defaults:
            result, name = self._load_single_config(default, repo), str(default.config_path)
            where, foreign = _place(result, name), _is_foreign(result)
            in_place_of_another = foreign and repo.get_schema_source().is_config(name)
            if name in asked and not in_place_of_another:
                continue
            keys = list(result.config)  # `in` alone would look at the values as well
            if "hydra" in keys and (foreign or _is_foreign(repo.load_config(str(default.parent)))):
                raise UserError(
                    f"{where} has settings of Hydra's own, which can run code; take them out, or "
                    f"give them on the command line if they are yours"
                )
        return super()._compose_config_from_defaults_list(defaults, repo)


@contextmanager
def guarded() -> Iterator[None]:
    """Whatever Hydra composes meanwhile, it composes with the loader above."""
    kept = _HYDRA.ConfigLoaderImpl
    _HYDRA.ConfigLoaderImpl = GuardedLoader
    try:
        yield
    finally:
        _HYDRA.ConfigLoaderImpl = kept


def _chosen(overrides: Sequence[str]) -> set[str | None]:
    """The files of Hydra's own groups that a command line names."""
    chosen: set[str | None] = set()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group.startswith("hydra/"):
            value = override.value()
            names = value if isinstance(value, list) else [value]
            chosen |= {f"{override.key_or_group}/{name}" for name in names}
    return chosen


def _place(result: ConfigResult, name: str) -> str:
    """Where a file lies, for people.

    Raises:
        UserError: where that is not in the folder of configuration that it was found through.
    """
    file = name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
    path = Path(result.path.removeprefix(FILE), file)
    outside = ".." in Path(file).parts or Path(file).is_absolute()
    if _is_foreign(result) and result.path.startswith(FILE):
        folder = Path(result.path.removeprefix(FILE))
        outside = outside or not path.resolve().is_relative_to(folder.resolve())
    if outside:
        raise UserError(
            f"{printable(str(path))} leads out of its folder of configuration; copy the file into "
            f"the folder, and name it in defaults as /GROUP/NAME"
        )
    return printable(str(path))


def _is_foreign(result: ConfigResult | None) -> bool:
    return result is not None and result.provider.startswith(GIVEN)
