"""Validates a composed configuration against the schema and across fields."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.config.schema import SECTIONS, Component, Config
from spinal_repro.errors import UserError, check_known, one_of
from spinal_repro.io import expand_home
from spinal_repro.registry import merge_onto

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")  # can be part of a path
COMPONENTS = ("model", "head", "tracker")
TOP = dataclasses.make_dataclass(  # settings outside the groups
    "Top", [("seed", int, MISSING), ("runs", str, MISSING), ("cell", str | None, None)]
)
# options with these values are the same as if left out
UNSET: dict[str, Any] = {
    "pretrained": None,
    "freeze": "none",
    "output_dropout": None,
    "zero_head_bias": False,
    "order": [],
}


def format_hydra_error(error: Exception) -> str:
    """Format a Hydra or OmegaConf error in one line."""
    noise = ("Config search path", "provider=", "object_type", "Set the env")
    lines = (line.strip() for line in str(error).splitlines())
    return "; ".join(line for line in lines if line and not line.startswith(noise))


def validate(raw: DictConfig | Mapping[str, Any]) -> Config:
    """Check a composed configuration and freeze it."""
    try:
        plain: Any = OmegaConf.to_container(OmegaConf.create(cast(Any, raw)), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(format_hydra_error(error)) from None
    paper = plain.pop("paper", None)
    if paper is not None:
        if not isinstance(paper, dict) or not isinstance(paper.get("name"), str):
            raise UserError(f"paper must be a published cell with its name, got {paper!r}")
        plain["cell"] = paper["name"]
    plain.setdefault("tracker", {"name": "none"})
    known = [entry.name for entry in dataclasses.fields(Config)]
    for key in plain:
        check_known("configuration key", key, known)
    plain = _checked(plain)
    top = {key: plain[key] for key in ("seed", "runs", "cell") if key in plain}
    parts: dict[str, Any] = {name: _component(name, plain.get(name)) for name in COMPONENTS}
    for name, schema in SECTIONS.items():
        parts[name] = _section(name, schema, plain.get(name))
    config = Config(**parts, **merge_onto(TOP, top, where="the configuration"))
    _check_limits(config)
    groups = ("dataset", "head", "recipe", "protocol")  # their names are parts of a path
    names = {f"{group}.name": getattr(config, group).name for group in groups}
    for key, name in (names | {"model.name": config.model.label}).items():
        if not NAME.fullmatch(name):
            raise UserError(
                f"{key} may have letters, digits and . _ + - (at most 100), got {name!r}"
            )
    given = {key: file for key in ("table", "file") if (file := getattr(config.data, key))}
    if unread := {key for key, file in given.items() if file != config.dataset.file}:
        raise UserError(
            f"dataset={config.dataset.name} does not read data.{unread.pop()}: data.table is for "
            f"dataset=table, data.file for dataset=npz, csv or parquet"
        )
    _check_recipe(config)
    _check_protocol(config)
    device = config.runtime.device.partition(":")[0]
    if device == "auto":  # resolved when the run starts, with precision and graph
        return config
    runtime = dataclasses.replace(config.runtime.on(device), device=config.runtime.device)
    return dataclasses.replace(config, runtime=runtime)


def _section(name: str, schema: type, node: Any) -> Any:
    if not isinstance(node, dict):
        raise UserError(f"{name} must be a group of settings, got {node!r}")
    settings = {key: value for key, value in node.items() if (name, key) != ("dataset", "about")}
    if isinstance(stages := settings.get("stages"), dict):  # keys of JSON are strings
        settings["stages"] = {int(k) if str(k).isdigit() else k: v for k, v in stages.items()}
    return schema(**merge_onto(schema, settings, where=name))


def _component(group: str, node: Any) -> Component:
    names = [node.get("name"), node.get("kind") or ""] if isinstance(node, dict) else [None]
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{group} must be a group of settings with a name, got {node!r}")
    options = {
        key: value
        for key, value in node.items()
        if key not in ("name", "kind") and not (key in UNSET and value == UNSET[key])
    }
    return Component(node["name"], options, node.get("kind"))


def _checked(value: Any, where: str = "") -> Any:
    """Expand ~ at the start of a path; refuse NaN, Inf and integers beyond 64 bits."""
    too_large = isinstance(value, int) and abs(value) >= 2**63
    if too_large or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"{where} must be a finite number of 64 bits, got {value}")
    if isinstance(value, dict):
        return {k: _checked(v, f"{where}.{k}".removeprefix(".")) for k, v in value.items()}
    if isinstance(value, list):
        return [_checked(item, f"{where}.{number}") for number, item in enumerate(value)]
    return expand_home(value) if isinstance(value, str) else value


def _check_limits(config: Config) -> None:
    """Check each field against the limits that `schema` declares beside it."""
    for prefix, part in [("", config), *((f"{name}.", getattr(config, name)) for name in SECTIONS)]:
        for entry in dataclasses.fields(part):
            key, value, limits = f"{prefix}{entry.name}", getattr(part, entry.name), entry.metadata
            if "choices" in limits:
                one_of(key, value.partition(":")[0], limits["choices"])  # device may be cuda:1
            elif limits and isinstance(value, str) and value != entry.default:
                raise UserError(f"{key} must be a number or {entry.default}, got '{value}'")
            elif limits and isinstance(value, int | float):
                if not value > limits.get("above", -math.inf):
                    raise UserError(f"{key} must be above {limits['above']}, got {value}")
                if value < limits.get("least", -math.inf):
                    raise UserError(f"{key} must be {limits['least']} or more, got {value}")
                if value > limits.get("most", math.inf):
                    raise UserError(f"{key} must be at most {limits['most']:,}, got {value:,}")


def _check_recipe(config: Config) -> None:
    recipe, dataset = config.recipe, config.dataset
    frozen = config.model.options.get("freeze") == "backbone"
    if dataset.num_classes is not None and dataset.outputs < dataset.num_classes:
        raise UserError(
            f"dataset.num_outputs is below the number of classes, {dataset.num_classes}"
        )
    if recipe.head_epochs and frozen:
        raise UserError("recipe.head_epochs unfreezes the backbone; remove model.freeze")
    if recipe.cache_features and (recipe.augment or recipe.mixup or recipe.cutmix or not frozen):
        raise UserError(
            "recipe.cache_features needs a backbone that does not train and images that do not "
            "change: set model.freeze=backbone and recipe.augment=[], without mixup and cutmix"
        )
    for key, share in {"label_smoothing": recipe.label_smoothing, "ema": recipe.ema}.items():
        if not 0 <= share < 1:
            raise UserError(f"recipe.{key} must be in [0, 1), got {share}")
    if recipe.patience and recipe.stages:
        raise UserError("recipe.patience would end a run before its recipe.stages; use one of them")
    if (recipe.mean is None) != (recipe.std is None):
        raise UserError("recipe.mean and recipe.std must both be given, or both be null")
    for key, constants in {"mean": recipe.mean, "std": recipe.std}.items():
        if any(type(value) not in (int, float) for value in constants or ()):
            raise UserError(f"recipe.{key} must be a list of numbers, got {constants}")
        if constants is not None and len(constants) not in (1, dataset.channels):
            raise UserError(
                f"recipe.{key} needs one value, or {dataset.channels} by channel; got {constants}"
            )
    if recipe.std and min(recipe.std) <= 0:
        raise UserError(f"recipe.std must be above 0, got {recipe.std}")
    Preprocessing.of(recipe.prepare, "eval")
    fit, first = Preprocessing.of(recipe.prepare, "train").fit, next(iter(recipe.augment), {})
    if fit is not None and not (first.get("name") == "resized_crop" and first.get("size")):
        raise UserError(
            "recipe.prepare.train.fit needs a resized crop, with its size, first in recipe.augment"
        )
    for epoch, lr in recipe.stages.items():
        if not (epoch > 1 and lr > 0):
            raise UserError(
                f"recipe.stages takes epochs 2 or later and rates above 0, got {epoch}: {lr}"
            )


def _check_protocol(config: Config) -> None:
    protocol, fraction = config.protocol, config.protocol.val_fraction
    if protocol.select_on == "val" and not 0 < fraction < 1:
        raise UserError("protocol.val_fraction must be between 0 and 1 with protocol.select_on=val")
    folds = protocol.folds
    if folds == 1 or protocol.fold >= max(folds, 1) or (folds and not config.data.test):
        raise UserError(
            f"protocol.fold must be from 0 to protocol.folds - 1, with protocol=kfold, "
            f"protocol.folds=2 or more and data.test=true; got fold {protocol.fold} of {folds}"
        )
    if protocol.select_on == "test" and fraction != 0:
        raise UserError("protocol.val_fraction must be 0 with protocol.select_on=test")
    if protocol.select_on == "test" and protocol.watch_test:
        raise UserError("leave out protocol.watch_test: protocol.select_on=test includes it")
    if (protocol.select_on == "test" or protocol.watch_test) and not config.data.test:
        raise UserError("data.test=false needs protocol=heldout and protocol.watch_test=false")
