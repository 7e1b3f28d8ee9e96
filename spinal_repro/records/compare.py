"""What a record's configuration has in common with a cell's, and where they differ.

Configurations are compared as they are stored, with the defaults of the schema for keys that are
younger than the record.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from spinal_repro.config.compose import config_dir
from spinal_repro.config.schema import DatasetConfig, ProtocolConfig, RecipeConfig

# Neither changes what is trained: epochs are compared on their own, as a budget.
NOT_COMPARED = {"recipe": ("name", "published_epochs", "eval_batch_size", "epochs")}
DATASET = ("name", "num_classes", "num_outputs")  # the rest says where images come from
UNSET = {"pretrained": None, "freeze": "none"}
ABSENT = "nothing"


def training_fields(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What decides the result of a run besides epochs, seed, protocol and machine.

    Args:
        config: A stored configuration, of a record or of a cell.

    Returns:
        The groups dataset, model, head and recipe, each flat: dotted key to value.
    """
    dataset = _with_defaults(DatasetConfig, config["dataset"])
    recipe = _with_defaults(RecipeConfig, config["recipe"])
    for key in NOT_COMPARED["recipe"]:
        recipe.pop(key, None)
    model = {k: v for k, v in config["model"].items() if not (k in UNSET and v == UNSET[k])}
    groups = {
        "dataset": {key: dataset.get(key) for key in DATASET},
        "model": model,
        "head": dict(config["head"]),
        "recipe": recipe,
    }
    return {name: dict(_flat(group)) for name, group in groups.items()}


def differences(config: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """Where a record's configuration differs from its cell's, in words.

    One is e.g. ``recipe.lr 0.01 instead of 0.005``. Epochs and images left out are budgets, see
    `reductions`; machine and seed are not compared.
    """
    found = []
    ours, theirs = training_fields(config), training_fields(reference)
    for group in ours:
        a, b = ours[group], theirs[group]
        if a.get("name") != b.get("name") and group != "recipe":
            found.append(f"{group} {a.get('name')} instead of {b.get('name')}")
            continue
        for key in sorted(a.keys() | b.keys()):
            if a.get(key, ABSENT) != b.get(key, ABSENT):
                found.append(f"{group}.{key} {_say(a, key)} instead of {_say(b, key)}")
    epochs, wanted = config["recipe"]["epochs"], reference["recipe"]["epochs"]
    if epochs > wanted:
        found.append(f"{epochs} epochs instead of {wanted}")
    return [*found, *_protocol_differences(config["protocol"])]


def reductions(config: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """Why runs are shorter or smaller than their cell's, e.g. ``8 of 200 epochs``."""
    found = []
    epochs, wanted = config["recipe"]["epochs"], reference["recipe"]["epochs"]
    if epochs < wanted:
        found.append(f"{epochs} of {wanted} epochs")
    limit = (config.get("data") or {}).get("limit")
    if limit is not None:
        found.append(f"at most {limit} images a split")
    return found


def _protocol_differences(protocol: Mapping[str, Any]) -> list[str]:
    """Differences from the shipped protocol of the same name."""
    shipped = _shipped_protocol(str(protocol["name"]))
    return [
        f"protocol.{key} {_say(protocol, key)} instead of {_say(shipped, key)}"
        for key in ("select_on", "val_fraction", "split_seed")
        if shipped and protocol.get(key) != shipped[key]
    ]


@functools.cache
def _shipped_protocol(name: str) -> dict[str, Any]:
    path = config_dir() / "protocol" / f"{name}.yaml"
    if not path.is_file():
        return {}
    loaded: Any = OmegaConf.to_container(OmegaConf.load(path))
    loaded.pop("defaults", None)
    return _with_defaults(ProtocolConfig, loaded)


def _with_defaults(schema: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored group, with the default of every field that it lacks and that has one."""
    filled = {}
    for field in dataclasses.fields(schema):
        if field.name in stored:
            filled[field.name] = stored[field.name]
        elif field.default is not dataclasses.MISSING:
            filled[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            filled[field.name] = field.default_factory()
    return filled


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain values; whole numbers equal floats, as in YAML."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _plain(item)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _say(group: Mapping[str, Any], key: str) -> str:
    """A value as YAML would show it, short."""
    if key not in group:
        return ABSENT
    value = group[key]
    return f"{value:g}" if isinstance(value, float) else _whole(json.dumps(value))


def _whole(text: str) -> str:
    return text.replace(".0,", ",").replace(".0]", "]").strip('"')
