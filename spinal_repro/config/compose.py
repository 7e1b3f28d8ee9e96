"""Composing and validating the configuration of a run.

YAML under ``configs/`` only fills the dataclasses of `schema`. `validate` re-merges whatever Hydra
composed into them, because Hydra alone accepts unknown keys behind ``+`` and inside YAML files.
"""

import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from spinal_repro.config.preprocessing import Preprocessing, refuse_constants
from spinal_repro.config.schema import (
    Component,
    Config,
    DataConfig,
    DatasetConfig,
    ProtocolConfig,
    RecipeConfig,
    RuntimeConfig,
    schema_keys,
)
from spinal_repro.errors import UserError, check_names, one_of, unknown
from spinal_repro.registry import merge_onto
from spinal_repro.seeds import LARGEST

GROUPS = ("dataset", "model", "head", "recipe", "protocol", "runtime", "tracker")
NAMES = ("dataset.name", "model.label", "head.name", "recipe.name", "protocol.name")  # of folders
ABOVE_0 = (
    "dataset.num_classes", "dataset.image_size", "dataset.channels", "dataset.num_outputs",
    "recipe.epochs", "recipe.batch_size", "recipe.eval_batch_size", "recipe.lr", "data.limit",
    "runtime.threads", "runtime.jobs", "runtime.time_limit",
)  # fmt: skip
FROM_0 = (
    "seed", "recipe.momentum", "recipe.weight_decay", "recipe.head_epochs", "protocol.split_seed",
    "runtime.save_every",
)  # fmt: skip
AT_MOST = {  # with a million threads, PyTorch crashes
    "protocol.split_seed": LARGEST, "runtime.threads": 4096, "runtime.jobs": 4096,
}  # fmt: skip
CHOICES = {
    "protocol.select_on": ("val", "test"),
    "runtime.precision": ("auto", "fp32", "tf32", "bf16"),
    "runtime.progress": ("auto", "bar", "lines", "none"),
    "runtime.debug": ("none", "nonfinite"),
    "runtime.device": ("auto", "cpu", "cuda", "mps"),
}


def config_dir() -> Path:
    """The folder of the shipped YAML: inside an installed wheel, or at the root of a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def version_base() -> dict[str, Any]:
    """What Hydra 1.3 must be told to have its own defaults; later versions have theirs untold."""
    import hydra

    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


def force_add_schema_keys(overrides: Sequence[str]) -> list[str]:
    """The same overrides, where settings that the schema has may be set whether or not YAML does.

    Hydra wants a plus for the one and none for the other, which nobody can know by heart.
    """
    keys = schema_keys()
    return [
        f"++{override}" if "." in key and key in keys else override
        for override, key in ((override, override.partition("=")[0]) for override in overrides)
    ]


def compose(overrides: Sequence[str] = (), extra_dir: Path | None = None) -> Config:
    """Compose and validate a configuration as the command line would.

    Args:
        overrides: Hydra overrides, e.g. ``["model=vgg5", "seed=1"]``.
        extra_dir: A folder with configuration groups of one's own, searched as well.

    Raises:
        UserError: for any name, key or value that is not valid.
    """
    return validate(compose_raw(overrides, extra_dir))


def compose_raw(overrides: Sequence[str], extra_dir: Path | None = None) -> DictConfig:
    """What Hydra makes of the YAML and the overrides, unchecked."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    overrides = force_add_schema_keys(overrides)
    search = [f"hydra.searchpath=[file://{extra_dir.resolve()}]"] if extra_dir else []
    try:
        if GlobalHydra.instance().is_initialized():
            return hydra_compose("train", overrides=[*overrides, *search])
        with initialize_config_dir(str(config_dir().resolve()), **version_base()):
            return hydra_compose("train", overrides=[*overrides, *search])
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(format_hydra_error(error)) from error


def format_hydra_error(error: Exception) -> str:
    """A Hydra or OmegaConf error as one line for people."""
    noise = ("Config search path", "provider=", "object_type", "Set the env")
    lines = (line.strip() for line in str(error).splitlines())
    return "; ".join(line for line in lines if line and not line.startswith(noise))


@dataclass(frozen=True)
class _Top:
    """What stands beside the groups."""

    seed: int = MISSING
    runs: str = MISSING
    cell: str | None = None


def validate(raw: DictConfig | Mapping[str, Any]) -> Config:
    """Check a composed configuration against the schema and freeze it.

    Raises:
        UserError: for unknown keys, wrong types and values that make no sense.
    """
    try:
        node = raw if isinstance(raw, DictConfig) else OmegaConf.create(dict(raw))
        plain: Any = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(format_hydra_error(error)) from None
    paper = plain.pop("paper", None)
    if paper is not None:
        if not isinstance(paper, dict) or not isinstance(paper.get("name"), str):
            raise UserError(f"paper must be a published cell with its name, got {paper!r}")
        plain["cell"] = paper["name"]
    known = [entry.name for entry in dataclasses.fields(Config)]
    for key in plain:
        if key not in known:
            raise unknown("configuration key", str(key), known)
    if isinstance(plain.get("dataset"), dict):
        plain["dataset"].pop("about", None)  # for the catalog, see data/catalog.py
    if isinstance(plain.get("recipe"), dict) and isinstance(plain["recipe"].get("stages"), dict):
        stages = plain["recipe"]["stages"].items()  # JSON has made text of the epochs
        plain["recipe"]["stages"] = {int(k) if str(k).isdigit() else k: v for k, v in stages}
    _check_numbers(plain)

    def section(name: str, schema: type) -> Any:
        node = plain.get(name)
        if not isinstance(node, dict):
            raise UserError(f"{name} must be a group of settings, got {node!r}")
        return schema(**merge_onto(schema, node, where=name))

    top = {key: plain[key] for key in ("seed", "runs", "cell") if key in plain}
    config = Config(
        dataset=section("dataset", DatasetConfig),
        model=_component("model", plain.get("model")),
        head=_component("head", plain.get("head")),
        recipe=section("recipe", RecipeConfig),
        protocol=section("protocol", ProtocolConfig),
        runtime=section("runtime", RuntimeConfig),
        data=section("data", DataConfig),
        tracker=_component("tracker", plain.get("tracker") or {"name": "none"}),
        **merge_onto(_Top, top, where="the configuration"),
    )
    _check_values(config)
    device = config.runtime.device.partition(":")[0]
    if device == "auto":  # which decides the precision, and is found when the run begins
        return config
    runtime = dataclasses.replace(config.runtime, precision=config.runtime.on(device).precision)
    return dataclasses.replace(config, runtime=runtime)


def _check_numbers(value: Any, where: str = "") -> None:
    """Refuse NaN, infinities and whole numbers beyond 64 bits, wherever they stand."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} must be a finite number, got {value}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(f"{where} must be a number that 64 bits hold, got {value}")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item, where)


def _component(group: str, node: Any) -> Component:
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        raise UserError(f"{group} must be a group of settings with a name, got {node!r}")
    kind = node.get("kind")
    if kind is not None and not isinstance(kind, str):
        raise UserError(f"{group}.kind must be a name, got {kind!r}")
    # left out where they change nothing
    unset = {"pretrained": None, "freeze": "none", "output_dropout": None}
    options = {
        key: value
        for key, value in node.items()
        if key not in ("name", "kind") and not (key in unset and value == unset[key])
    }
    return Component(node["name"], options, kind)


def _check_values(config: Config) -> None:
    """Refuse values of the right type that make no sense."""
    for key in NAMES:
        check_names({key.replace("label", "name"): _value(config, key)})
    for key in ABOVE_0:
        value = _value(config, key)
        if isinstance(value, int | float) and not value > 0:
            raise UserError(f"{key} must be above 0, got {value}")
    for key in FROM_0:
        value = _value(config, key)
        if value is not None and not value >= 0:
            raise UserError(f"{key} must be 0 or more, got {value}")
    for key, most in AT_MOST.items():
        value = _value(config, key)
        if isinstance(value, int) and value > most:
            raise UserError(f"{key} must be at most {most:,}, got {value:,}")
    for key, allowed in CHOICES.items():
        one_of(key, _value(config, key).partition(":")[0], allowed)  # the device may be cuda:1
    if isinstance(jobs := config.runtime.jobs, str) and jobs != "auto":
        raise UserError(f"runtime.jobs must be a whole number or auto, got '{jobs}'")
    if config.dataset.num_classes is not None and (
        config.dataset.outputs < config.dataset.num_classes
    ):
        raise UserError(
            f"dataset.num_outputs ({config.dataset.outputs}) is below the number of classes "
            f"({config.dataset.num_classes})"
        )
    if config.recipe.head_epochs and config.model.options.get("freeze") == "backbone":
        raise UserError("recipe.head_epochs trains the backbone later; leave out model.freeze")
    _check_recipe(config.recipe, config.dataset)
    _check_protocol(config.protocol, config.data)


def _value(config: Config, key: str) -> Any:
    return operator.attrgetter(key)(config)


def _check_recipe(recipe: RecipeConfig, dataset: DatasetConfig) -> None:
    if not 0 <= recipe.label_smoothing < 1:
        raise UserError(f"recipe.label_smoothing must lie in [0, 1), got {recipe.label_smoothing}")
    if (recipe.mean is None) != (recipe.std is None):
        raise UserError("recipe.mean and recipe.std must both be given, or both be null")
    for key, constants in {"mean": recipe.mean, "std": recipe.std}.items():
        if any(type(value) not in (int, float) for value in constants or ()):
            raise UserError(f"recipe.{key} must be a list of numbers, got {constants}")
        if constants is not None and len(constants) not in (1, dataset.channels):
            raise UserError(
                f"recipe.{key} needs one value, or one for each of the {dataset.channels} "
                f"channels of {dataset.name}, got {constants}"
            )
    refuse_constants(recipe.std or (), "recipe")
    for part in ("train", "eval"):
        Preprocessing.of(recipe, part)
    for epoch, lr in recipe.stages.items():
        if not (epoch > 1 and lr > 0):
            raise UserError(
                f"recipe.stages maps a first epoch (2 or later) to a learning rate above 0, "
                f"got {epoch}: {lr}"
            )


def _check_protocol(protocol: ProtocolConfig, data: DataConfig) -> None:
    if protocol.select_on == "val" and not 0 < protocol.val_fraction < 1:
        raise UserError(
            f"protocol.val_fraction must lie between 0 and 1 where the validation part selects, "
            f"got {protocol.val_fraction}"
        )
    if protocol.select_on == "test" and protocol.val_fraction != 0:
        raise UserError("protocol.val_fraction must be 0 where the test set selects")
    if protocol.select_on == "test" and protocol.watch_test:
        raise UserError("protocol.watch_test says nothing new where the test set selects")
    if (protocol.select_on == "test" or protocol.watch_test) and not data.test:
        raise UserError("data.test=false needs protocol=heldout, which decides without it")
