"""Settings in which a run differs from its published cell; missing ones have the defaults."""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spinal_repro.config.compose import config_dir
from spinal_repro.config.schema import DatasetConfig, ProtocolConfig, RecipeConfig, leaves
from spinal_repro.config.validate import UNSET
from spinal_repro.io import read_yaml

BUDGET, RECIPE, PROTOCOL = "budget", "recipe", "protocol"
EPOCHS, LIMIT = "recipe.epochs", "data.limit"
# These do not change what is trained; epochs are compared separately, as a budget.
NOT_COMPARED = ("name", "published_epochs", "eval_batch_size", "epochs")
DATASET = ("name", "num_classes", "num_outputs", "test_outputs")  # other keys locate the images
NAMES = ("dataset.name", "model.name", "head.name")
ABSENT = object()


@dataclass(frozen=True, order=True)
class Difference:
    """One setting of a run that differs from its cell's."""

    key: str
    ours: str  # JSON text, by which equal runs can be grouped; empty where the setting is absent
    theirs: str
    kind: str  # BUDGET, RECIPE or PROTOCOL

    @classmethod
    def of(cls, key: str, ours: Any, theirs: Any, kind: str = RECIPE) -> "Difference":
        return cls(key, json.dumps(ours), json.dumps(theirs), kind)

    def __str__(self) -> str:
        """The sentence shown to users, e.g. ``recipe.lr 0.01 instead of 0.005``."""
        ours, theirs = _shown(self.ours), _shown(self.theirs)
        if self.key == LIMIT:
            return f"at most {ours} images per split"
        if self.kind == BUDGET:
            return f"{ours} of {theirs} {self.key.removeprefix('recipe.')}"
        if self.key == EPOCHS:
            return f"{ours} epochs instead of {theirs}"
        key = self.key.removesuffix(".name") if self.key in NAMES else self.key
        return f"{key} {ours} instead of {theirs}"


def _shown(text: str) -> str:
    if not text:
        return "nothing"
    value = json.loads(text)
    if isinstance(value, float):
        return f"{value:g}"
    return text.replace(".0,", ",").replace(".0]", "]").strip('"')


def differences(config: Mapping[str, Any], cell: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Compare a run's configuration with its cell's; seed and machine are not compared."""
    found = []
    epochs, wanted = config["recipe"]["epochs"], cell["recipe"]["epochs"]
    data = config.get("data") or {}
    if epochs < wanted:
        found.append(Difference.of(EPOCHS, epochs, wanted, BUDGET))
    if (limit := data.get("limit")) is not None:
        found.append(Difference.of(LIMIT, limit, None, BUDGET))
    for name, ours in (data.get("inputs") or {}).items():
        found.append(Difference.of(f"SHA-256 of {name}", ours, "that of the cell"))
    found += _in_training(config, cell)
    if epochs > wanted:
        found.append(Difference.of(EPOCHS, epochs, wanted))
    return (*found, *_in_protocol(config["protocol"]))


def _in_training(config: Mapping[str, Any], cell: Mapping[str, Any]) -> Iterator[Difference]:
    for group in ("dataset", "model", "head", "recipe"):
        if config[group] == cell[group]:
            continue
        a, b = (dict(leaves(_compared(group, of[group]), group)) for of in (config, cell))
        name = f"{group}.name"
        keys = [name] if name in NAMES and a.get(name) != b.get(name) else sorted(a.keys() | b)
        for key in keys:
            if a.get(key, ABSENT) != b.get(key, ABSENT):
                yield Difference(key, _text(a.get(key, ABSENT)), _text(b.get(key, ABSENT)), RECIPE)


def _compared(group: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of a group that decide a result, except the epochs, with the schema's defaults."""
    if group == "dataset":
        known = _with_defaults(DatasetConfig, settings)
        return {key: known[key] for key in DATASET}
    if group == "recipe":
        known = _with_defaults(RecipeConfig, settings)
        return {key: value for key, value in known.items() if key not in NOT_COMPARED}
    return {**UNSET, **settings} if group == "model" else settings


def _in_protocol(protocol: Mapping[str, Any]) -> Iterator[Difference]:
    """Differences from the shipped protocol of the same name."""
    shipped = _shipped_protocol(str(protocol["name"]))
    ours = _with_defaults(ProtocolConfig, protocol)
    for key in ("select_on", "select_metric", "val_fraction", "split_seed"):
        if shipped and ours[key] != shipped[key]:
            yield Difference.of(f"protocol.{key}", ours[key], shipped[key], PROTOCOL)


@functools.cache
def _shipped_protocol(name: str) -> dict[str, Any]:
    path = config_dir() / "protocol" / f"{name}.yaml"
    return _with_defaults(ProtocolConfig, read_yaml(path)) if path.is_file() else {}


def _with_defaults(schema: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    return {key: stored.get(key, default) for key, default in _defaults(schema).items()}


@functools.cache
def _defaults(schema: type) -> dict[str, Any]:
    return vars(schema())


def _text(value: Any) -> str:
    """Return a value as JSON, empty if absent; integers become floats, so that 1 equals 1.0."""
    if value is ABSENT:
        return ""
    return json.dumps(json.loads(json.dumps(value), parse_int=float), sort_keys=True)
