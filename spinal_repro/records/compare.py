"""Settings in which a run differs from its published cell.

Stored configurations are compared; keys younger than the record have the defaults of the schema.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spinal_repro.config.compose import config_dir
from spinal_repro.config.schema import DatasetConfig, ProtocolConfig, RecipeConfig
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
        """A difference of two plain values."""
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
    """Format a value as in YAML."""
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
    limit = (config.get("data") or {}).get("limit")
    if epochs < wanted:
        found.append(Difference.of(EPOCHS, epochs, wanted, BUDGET))
    if limit is not None:
        found.append(Difference.of(LIMIT, limit, None, BUDGET))
    found += _in_training(config, cell)
    if epochs > wanted:
        found.append(Difference.of(EPOCHS, epochs, wanted))
    return (*found, *_in_protocol(config["protocol"]))


def _in_training(config: Mapping[str, Any], cell: Mapping[str, Any]) -> Iterator[Difference]:
    theirs = _compared(cell)
    for group, settings in _compared(config).items():
        if settings == theirs[group]:
            continue
        a, b = (dict(_flat(side, f"{group}.")) for side in (settings, theirs[group]))
        name = f"{group}.name"
        keys = [name] if name in NAMES and a.get(name) != b.get(name) else sorted(a.keys() | b)
        for key in keys:
            if a.get(key, ABSENT) != b.get(key, ABSENT):
                yield Difference(key, _text(a.get(key, ABSENT)), _text(b.get(key, ABSENT)), RECIPE)


def _compared(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings of dataset, model, head and recipe that decide a result, except the epochs."""
    dataset = _with_defaults(DatasetConfig, config["dataset"])
    recipe = _with_defaults(RecipeConfig, config["recipe"])
    return {
        "dataset": {key: dataset.get(key) for key in DATASET},
        "model": UNSET | config["model"],
        "head": config["head"],
        "recipe": {key: value for key, value in recipe.items() if key not in NOT_COMPARED},
    }


def _in_protocol(protocol: Mapping[str, Any]) -> Iterator[Difference]:
    """Differences from the shipped protocol of the same name."""
    shipped = _shipped_protocol(str(protocol["name"]))
    for key in ("select_on", "val_fraction", "split_seed"):
        if shipped and protocol.get(key) != shipped[key]:
            yield Difference.of(f"protocol.{key}", protocol.get(key), shipped[key], PROTOCOL)


@functools.cache
def _shipped_protocol(name: str) -> dict[str, Any]:
    path = config_dir() / "protocol" / f"{name}.yaml"
    return _with_defaults(ProtocolConfig, read_yaml(path)) if path.is_file() else {}


def _with_defaults(schema: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults of fields that a stored group lacks."""
    known = {field.name for field in dataclasses.fields(schema)}
    return vars(schema(**{key: value for key, value in stored.items() if key in known}))


def _flat(group: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values."""
    for key, item in group.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _text(value: Any) -> str:
    """Return a value as JSON, empty if absent; integers become floats, so that 1 equals 1.0."""
    if value is ABSENT:
        return ""
    return json.dumps(json.loads(json.dumps(value), parse_int=float), sort_keys=True)
