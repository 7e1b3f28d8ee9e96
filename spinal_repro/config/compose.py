"""Composes the YAML under ``configs/`` and a command's overrides into a `Config`."""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from spinal_repro.config.schema import Config, schema_keys
from spinal_repro.config.validate import format_hydra_error, validate
from spinal_repro.errors import UserError
from spinal_repro.io import expand_home, read_utf8, read_yaml

GROUPS = ("dataset", "model", "head", "recipe", "protocol", "runtime", "tracker")
SHORT = "short.yaml"  # choices of one or two lines each
TEXT = {"runs", "model.pretrained", "dataset.title"}  # settings: paths or text
TEXT |= {f"data.{key}" for key in ("root", "table", "file")}
TEXT |= {f"dataset.options.{key}" for key in ("folder", "train", "val", "test")}
NEW_RULE = re.compile(r"recipe\.lr_rule(\.name=|=\{(.*\W)?name: *)cosine\b")  # no recipe has it
OmegaConf.register_new_resolver("expanduser", expand_home, replace=True)


def config_dir() -> Path:
    """Find the shipped YAML: inside an installed wheel, or at the root of a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def version_base() -> dict[str, Any]:
    """The argument ``version_base``, for Hydra 1.3 alone."""
    import hydra

    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


def choices(group: str, folders: Iterable[Path | None] = ()) -> list[str]:
    """List the choices of a group, shipped or in the user's configuration folders."""
    places = [config_dir(), *filter(None, folders)]
    found = {path.stem for folder in places for path in (folder / group).glob("*.yaml")}
    return sorted(found | short_choices().get(group, {}).keys())


def find_choice(group: str, name: str, folders: Iterable[Path | None] = ()) -> tuple[str, Any]:
    """Find the location of a choice (for messages) and its YAML, its defaults not composed."""
    file = Path(group, f"{name}.yaml")
    for folder in (config_dir(), *filter(None, folders)):
        if (folder / file).is_file():
            place = file if folder == config_dir() else folder / file
            return str(place), read_yaml(folder / file)
    if (node := short_choices().get(group, {}).get(name)) is not None:
        return f"{SHORT} ({group}/{name})", node
    return f"{group}={name}", {"name": name}  # a network of a library


@functools.cache
def short_choices() -> dict[str, dict[str, Any]]:
    """Read the choices in `SHORT` by group and name, and register them with Hydra."""
    groups: dict[str, dict[str, Any]] = read_yaml(config_dir() / SHORT)
    for group, nodes in groups.items():
        for name, node in nodes.items():
            _store(group, name, node)
    return groups


def _store(group: str, name: str, node: dict[str, Any]) -> None:
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(group=group, name=name, node=node, provider=SHORT)


@functools.cache
def library_networks() -> dict[str, str]:
    """Map the networks of torchvision and timm, which need no file, to their library."""
    import timm
    from torchvision import models

    found = dict.fromkeys(models.list_models(module=models), "torchvision")
    return dict.fromkeys(timm.list_models(), "timm") | found


def search_path(folders: Iterable[Path | None]) -> list[str]:
    """The override that lets Hydra read the user's configuration folders."""
    places = [_quoted(f"file://{folder.resolve()}") for folder in folders if folder is not None]
    return [f"hydra.searchpath=[{','.join(places)}]"] if places else []


def as_typed(override: str) -> str:
    """Quote text that Hydra would refuse (``photos (1)``) or change (``2024_01``)."""
    key, sign, value = override.partition("=")
    is_text = key.lstrip("+") in TEXT or key.lstrip("+").startswith("tracker.")
    if not (sign and is_text) or _read_as_text(value):
        return override
    values = [v if _read_as_text(v) else _quoted(v) for v in value.split(",")]  # of a sweep
    return f"{key}={','.join(values)}"


def _read_as_text(value: str) -> bool:
    """Whether Hydra reads a value, or every value of a sweep, as text or null."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, QuotedString
    from hydra.errors import HydraException

    try:
        found = OverridesParser.create().parse_override(f"x={value}").value()
    except HydraException:
        return False
    values = found.list if isinstance(found, ChoiceSweep) else [found]
    return all(isinstance(v, str | QuotedString | None) for v in values)


def _quoted(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


def prepare(overrides: Sequence[str], extra_dirs: Iterable[Path | None] = ()) -> list[str]:
    """Overrides for Hydra, with the plus that settings need which the YAML does not have."""
    short_choices()  # Hydra also gets the choices that have no file
    keys, known = schema_keys(), choices("model", extra_dirs)
    prepared = []
    for override in map(as_typed, overrides):
        key, _, value = override.partition("=")
        for name in value.split(",") if key == "model" else ():
            if name.isidentifier() and name not in known and name in library_networks():
                recipe = {"override /recipe@_global_.recipe": "sgd"}
                defaults = [library_networks()[name], "_self_", recipe]
                _store("model", name, {"defaults": defaults, "name": name})
        if new_rule := NEW_RULE.match(override):  # without the options of the recipe's own rule
            prepared.append("++recipe.lr_rule=null")
        prepared.append(f"++{override}" if new_rule or ("." in key and key in keys) else override)
    return prepared


def compose(overrides: Sequence[str] = (), *extra_dirs: Path | None) -> Config:
    """Compose and validate e.g. ``["model=vgg5"]``; ``extra_dirs``: one's own configurations."""
    return validate(compose_raw(overrides, *extra_dirs))


def compose_raw(overrides: Sequence[str], *extra_dirs: Path | None) -> DictConfig:
    """Compose with Hydra alone, without checks."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    full = [*prepare(overrides, extra_dirs), *search_path(extra_dirs)]
    with hydra_errors(extra_dirs):
        if GlobalHydra.instance().is_initialized():
            return hydra.compose("train", full)
        with hydra.initialize_config_dir(str(config_dir().resolve()), **version_base()):
            return hydra.compose("train", full)


@contextmanager
def hydra_errors(folders: Iterable[Path | None] = ()) -> Iterator[None]:
    """Raise errors of Hydra as `UserError`; name the file in ``folders`` that is not UTF-8."""
    from hydra.errors import HydraException

    try:
        yield
    except UnicodeDecodeError:
        for folder in filter(None, folders):
            for path in sorted(folder.rglob("*.yaml")):
                read_utf8(path)
        raise
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(format_hydra_error(error)) from error
