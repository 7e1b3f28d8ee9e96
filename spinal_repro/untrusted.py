"""What a configuration from elsewhere must not say.

A configuration may come from anybody: a folder given by ``--config-dir``, a run folder, a record.
It chooses among what this program can do, and does nothing itself: it names no code, reads no
environment but this program's own, and leads to no place outside the folders that people chose.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.resolvers import oc

from spinal_repro.errors import UserError
from spinal_repro.reading import read_yaml
from spinal_repro.record_shape import NAME

VARIABLES = "SPINAL_"  # what environment variables start with that a configuration may read
LOCAL = ("hydra", "now", "python_version")  # resolvers that no configuration may use
MAX_DEPTH = 50  # of nested values
MAX_INTEGER = 2**63 - 1  # what PyTorch and NumPy hold


@contextmanager
def own_variables() -> Iterator[None]:
    """Let ``${oc.env:...}`` read this program's own variables alone while this lasts.

    What a configuration resolves to ends up in records, which travel. So it must not say anything
    of this machine or moment either, which resolvers of Hydra's would tell; the other ones of
    OmegaConf, ``oc.decode`` and the like, only transform what a configuration says itself.
    """

    def env(key: str, *default: Any) -> Any:
        if not str(key).startswith(VARIABLES):
            raise UserError(
                f"a configuration may read the environment variables {VARIABLES}* alone, not "
                f"{str(key)[:40]}; say on the command line what it should be"
            )
        return oc.env(key, *default)

    def refuse(*_: Any) -> None:
        raise UserError(
            f"a configuration may not ask for what differs by machine or moment "
            f"({', '.join(f'${{{name}:...}}' for name in LOCAL)}); write what it should be"
        )

    kept = dict(BaseContainer._resolvers)
    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    for name in LOCAL:
        OmegaConf.register_new_resolver(name, refuse, replace=True)
    try:
        yield
    finally:
        BaseContainer._resolvers.clear()
        BaseContainer._resolvers.update(kept)


def refuse_interpolations(value: Any, where: str, depth: int = 0) -> None:
    """Refuse values that OmegaConf would look up somewhere, e.g. in the environment.

    Args:
        value: Plain containers.
        where: What they are, for the message.
        depth: How deep they stand already.

    Raises:
        UserError: naming the first one, and for containers nested without end.
    """
    if depth > MAX_DEPTH:
        raise UserError(f"{where} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        if "${" in value:
            raise UserError(f"{where}: {value[:60]!r} refers to something else; write what it says")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            refuse_interpolations(key, where, depth + 1)
            refuse_interpolations(item, where, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            refuse_interpolations(item, where, depth + 1)


def check_names(names: Mapping[str, str]) -> None:
    """Refuse names that could not be those of folders: they become parts of paths.

    Args:
        names: Key to name.

    Raises:
        UserError: naming the first one.
    """
    for key, name in names.items():
        if not NAME.fullmatch(name):
            raise UserError(
                f"{key} must be made of letters, digits and . _ + - (at most 100), "
                f"got {name[:60]!r}"
            )


def check_numbers(value: Any, where: str = "") -> None:
    """Refuse infinities, NaN and endless whole numbers wherever they stand in plain containers.

    Raises:
        UserError: naming the first one.
    """
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise UserError(f"{where} must lie between -{MAX_INTEGER:,} and {MAX_INTEGER:,}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} must be a finite number, got {value}")
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_numbers(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for item in value:
            check_numbers(item, where)


def refuse_unreadable(folders: Iterable[Path]) -> None:
    """Refuse folders of configuration with files that are too much to read, before Hydra does.

    Args:
        folders: Given by ``--config-dir`` or in Hydra's search path.

    Raises:
        UserError: naming the first such file.
    """
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            try:
                read_yaml(path)
            except UserError:
                if _is_yaml(path):  # Hydra could read what we do not
                    raise


def _is_yaml(path: Path) -> bool:
    """Whether a file has the syntax of YAML, whatever it holds; one that has not, nobody reads."""
    if not path.is_file():  # a pipe could be anything
        return True
    try:
        with path.open(encoding="utf-8") as file:
            deque(yaml.parse(file, Loader=yaml.SafeLoader), maxlen=0)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return True
