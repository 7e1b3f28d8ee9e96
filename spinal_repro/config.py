"""The configuration of a run: schema, composition, validation, identity.

YAML under ``configs/`` only fills these dataclasses. `validate` re-merges whatever Hydra
composed into them, because Hydra alone accepts unknown keys behind ``+`` and inside YAML files.
A head, backbone, learning-rate rule or augmentation is ``name`` plus options; its options are
checked against the constructor the name stands for (see `registry`). Where one constructor
serves many names (the networks of a library) the component also has a ``kind``.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from spinal_repro.errors import UserError, unknown
from spinal_repro.registry import merge_onto

GROUPS = ("dataset", "model", "head", "recipe", "protocol", "runtime")


def config_dir() -> Path:
    """The folder of the shipped YAML: inside an installed wheel, or at the root of a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


@dataclass(frozen=True)
class Component:
    """A registered name with its options: one head, backbone, rule or augmentation.

    Attributes:
        name: The registered name; with a ``kind``, one of the names that the kind knows.
        options: Keyword arguments of the constructor.
        kind: The registered name of a constructor that takes ``name`` as an option.
    """

    name: str
    options: dict[str, Any]
    kind: str | None = None

    @property
    def registered(self) -> str:
        """Under what the constructor is registered."""
        return self.name if self.kind is None else self.kind

    @property
    def arguments(self) -> dict[str, Any]:
        """What the constructor is called with."""
        return self.options if self.kind is None else {"name": self.name, **self.options}

    @property
    def label(self) -> str:
        """For folders and people: torchvision's ``resnet18`` is not timm's."""
        return self.name if self.kind is None else f"{self.kind}.{self.name}"

    def to_dict(self) -> dict[str, Any]:
        """The shape of the YAML."""
        kind = {} if self.kind is None else {"kind": self.kind}
        return {**kind, "name": self.name, **self.options}


@dataclass(frozen=True)
class DatasetConfig:
    """What a data set is: where its images come from and what must be found there.

    ``num_classes`` and the sizes of the parts are null where they are counted when the images are
    read, ``image_size`` where images are of any size and the recipe says what is made of them.
    ``val_size`` is the size of a published validation part; without one, ``heldout`` cuts its own.
    """

    name: str = MISSING
    title: str = field(default=MISSING, metadata={"identity": False})
    source: str = MISSING
    num_classes: int | None = MISSING
    image_size: int | None = MISSING
    channels: int = MISSING
    train_size: int | None = MISSING
    test_size: int | None = MISSING
    val_size: int | None = field(default=None, metadata={"identity": "if set"})
    label_offset: int = 0
    num_outputs: int | None = None  # logits of the model; the number of classes unless given
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Number of logits.

        Raises:
            UserError: where classes are counted from images that have not been read.
        """
        found = self.num_classes if self.num_outputs is None else self.num_outputs
        if found is None:
            raise UserError(
                f"the classes of {self.title} are counted when its images are read; without "
                f"them, say how many there are: dataset.num_classes=N"
            )
        return found


@dataclass(frozen=True)
class RecipeConfig:
    """How a model is trained.

    Attributes:
        published_epochs: What the paper's scripts run, if any.
        prepare: How stored images are brought to one size before augmentation and evaluation:
            ``{train: {resize: [272, 272]}, eval: {resize: 256, crop: 256}}``; as they are unless
            given (see `data.prepare`).
        stages: Epoch to learning rate: that epoch opens a new stage, from the best weights so
            far, with a fresh optimizer and rule.
        best_of_last_stage: Earlier stages are forgotten in selection, as the original does (Q21).
    """

    name: str = MISSING
    epochs: int = MISSING
    published_epochs: int | None = field(default=None, metadata={"identity": False})
    batch_size: int = MISSING
    eval_batch_size: int = 1000
    optimizer: str = MISSING
    lr: float = MISSING
    momentum: float = 0.0
    weight_decay: float = 0.0
    lr_rule: dict[str, Any] = field(default_factory=lambda: {"name": "constant"})
    label_smoothing: float = field(default=0.0, metadata={"identity": "if set"})
    augment: list[dict[str, Any]] = field(default_factory=list)
    mean: list[float] | None = MISSING  # null: what the model's weights expect
    std: list[float] | None = MISSING
    prepare: dict[str, Any] = field(default_factory=dict, metadata={"identity": "if set"})
    stages: dict[int, float] = field(default_factory=dict, metadata={"identity": "if set"})
    best_of_last_stage: bool = field(default=False, metadata={"identity": "if set"})


@dataclass(frozen=True)
class Preparation:
    """How stored images become images of one size, once, before anything random.

    Attributes:
        resize: A number for the shorter side, or ``[height, width]`` whatever the shape; null
            leaves the size.
        crop: Side of the centre square kept; null keeps all.
        interpolation: ``bilinear`` or ``bicubic``.
    """

    resize: Any = None
    crop: int | None = None
    interpolation: str = "bilinear"

    @classmethod
    def of(cls, recipe: RecipeConfig, part: str) -> "Preparation":
        """What a recipe does to one part, ``train`` or ``eval``.

        Raises:
            UserError: for an unknown part, key or ill-typed value.
        """
        for name in recipe.prepare:
            if name not in ("train", "eval"):
                raise unknown("part of recipe.prepare", str(name), ("train", "eval"))
        where = f"recipe.prepare.{part}"
        made = cls(**merge_onto(cls, recipe.prepare.get(part) or {}, where=where))
        sizes = made.resize if isinstance(made.resize, list) else [made.resize]
        whole = all(isinstance(size, int) and size > 0 for size in sizes)
        if made.resize is not None and not (whole and len(sizes) in (1, 2)):
            raise UserError(f"{where}.resize must be N or [HEIGHT, WIDTH], got {made.resize}")
        if len(set(sizes)) == 2 and made.crop is None:
            raise UserError(
                f"{where}.resize {made.resize} is not square; give {where}.crop as well"
            )
        if made.crop is not None and made.crop < 1:
            raise UserError(f"{where}.crop must be above 0, got {made.crop}")
        _one_of(f"{where}.interpolation", made.interpolation, ("bilinear", "bicubic"))
        return made

    @property
    def size(self) -> int | None:
        """Side of the square that results; null where it is the stored one."""
        if self.crop is not None or self.resize is None:
            return self.crop
        if isinstance(self.resize, list):
            return int(self.resize[0])
        return int(self.resize)


@dataclass(frozen=True)
class ProtocolConfig:
    """Who steers and selects: ``val`` (held out of train) or ``test`` (as published)."""

    name: str = MISSING
    select_on: str = MISSING
    val_fraction: float = MISSING
    split_seed: int = 0


@dataclass(frozen=True)
class RuntimeConfig:
    """On what a run is computed, and how it shows itself."""

    device: str = "auto"
    precision: str = "fp32"
    channels_last: bool = True
    threads: int | None = field(default=None, metadata={"identity": False})
    progress: str = field(default="auto", metadata={"identity": False})


@dataclass(frozen=True)
class DataConfig:
    """Where data lie. ``limit`` (images a split) is a reduced budget and part of the identity."""

    root: str = field(default="data", metadata={"identity": False})
    download: bool = field(default=False, metadata={"identity": False})
    limit: int | None = None


@dataclass(frozen=True)
class Config:
    """Everything that one run is made of."""

    dataset: DatasetConfig
    model: Component
    head: Component
    recipe: RecipeConfig
    protocol: ProtocolConfig
    runtime: RuntimeConfig
    data: DataConfig
    seed: int
    runs: str
    cell: str | None = None  # the published cell that this run was asked for as, if any

    def to_dict(self) -> dict[str, Any]:
        """Plain containers in the shape of the YAML (`validate` accepts it again)."""
        plain = dataclasses.asdict(self)
        plain["model"], plain["head"] = self.model.to_dict(), self.head.to_dict()
        return plain

    def portable(self) -> "Config":
        """The same without the places of one machine: records may travel."""
        data = dataclasses.replace(self.data, root=DataConfig().root)
        return dataclasses.replace(self, data=data, runs="runs")

    def identity(self) -> str:
        """Eight hex digits naming what is trained, the seed left out.

        Only what can change a result counts: not where data or runs lie, how progress is
        shown or how many threads compute.
        """
        plain = self.to_dict()
        for group, config in (
            ("dataset", self.dataset),
            ("recipe", self.recipe),
            ("runtime", self.runtime),
            ("data", self.data),
        ):
            for entry in dataclasses.fields(config):
                counts = entry.metadata.get("identity", True)
                if counts == "if set":  # younger than some records: its default changes nothing
                    counts = plain[group][entry.name] not in (entry.default, {}, None)
                if not counts:
                    del plain[group][entry.name]
        del plain["seed"], plain["runs"], plain["cell"]
        text = json.dumps(plain, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def input_size(self) -> int:
        """Side of the images that the network sees, in pixels."""
        size = self.preparation("eval").size
        assert size is not None
        return size

    def preparation(self, part: str) -> Preparation:
        """What images of ``train`` or ``eval`` are brought to before anything random.

        Where the recipe does not say: the data set's size, and for photographs of any size the
        centre 224 px of 256.
        """
        said, size = Preparation.of(self.recipe, part), self.dataset.image_size
        if said.size is not None:
            return said
        return dataclasses.replace(said, resize=size or 256, crop=size or 224)

    @property
    def run_dir(self) -> Path:
        """The folder of this run: the same configuration and seed always give the same one."""
        cell = f"{self.dataset.name}-{self.model.label}-{self.head.name}"
        return Path(self.runs) / cell / f"{self.protocol.name}-{self.identity()}" / f"s{self.seed}"

    @property
    def reduced_budget(self) -> list[str]:
        """Why this run is shorter than the published recipe; empty if it is not."""
        reasons = []
        published = self.recipe.published_epochs
        if published is not None and self.recipe.epochs < published:
            reasons.append(f"{self.recipe.epochs} of {published} epochs")
        if self.data.limit is not None:
            reasons.append(f"at most {self.data.limit} images a split")
        return reasons


def schema_keys() -> set[str]:
    """Every key of the schema: groups, and their settings whether or not the YAML gives them."""
    keys = {
        f"recipe.prepare.{part}{key}"
        for part in ("train", "eval")
        for key in ("", *(f".{entry.name}" for entry in dataclasses.fields(Preparation)))
    }
    for group in dataclasses.fields(Config):
        keys.add(group.name)
        if dataclasses.is_dataclass(group.type) and group.type is not Component:
            keys |= {f"{group.name}.{entry.name}" for entry in dataclasses.fields(group.type)}
    return keys


def allowing(overrides: Sequence[str]) -> list[str]:
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

    overrides = allowing(overrides)
    search = [f"hydra.searchpath=[file://{extra_dir.resolve()}]"] if extra_dir else []
    try:
        if GlobalHydra.instance().is_initialized():
            return hydra_compose("train", overrides=[*overrides, *search])
        with initialize_config_dir(str(config_dir().resolve()), version_base="1.3"):
            return hydra_compose("train", overrides=[*overrides, *search])
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(explain(error)) from error


def explain(error: Exception) -> str:
    """A Hydra or OmegaConf error as one line for people."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = []
    for line in lines:
        if line.startswith(("Config search path", "provider=", "object_type", "Set the env")):
            continue
        kept.append(line)
    return "; ".join(kept)


def validate(raw: DictConfig | Mapping[str, Any]) -> Config:
    """Check a composed configuration against the schema and freeze it.

    Raises:
        UserError: for unknown keys, wrong types and values that make no sense.
    """
    node = raw if isinstance(raw, DictConfig) else OmegaConf.create(dict(raw))
    try:
        plain: Any = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from None
    plain.pop("hydra", None)
    known = [entry.name for entry in dataclasses.fields(Config)]
    paper = plain.pop("paper", None)
    if paper is not None:
        plain["cell"] = paper["name"]
    for key in plain:
        if key not in known:
            raise unknown("configuration key", str(key), known)
    if isinstance(plain.get("dataset"), dict):
        plain["dataset"].pop("about", None)  # for the catalog, see data/catalog.py
    if isinstance(plain.get("recipe"), dict) and isinstance(plain["recipe"].get("stages"), dict):
        stages = plain["recipe"]["stages"].items()  # JSON has made text of the epochs
        plain["recipe"]["stages"] = {int(k) if str(k).isdigit() else k: v for k, v in stages}

    def section(name: str, schema: type) -> Any:
        node = plain.get(name)
        if not isinstance(node, dict):
            raise UserError(f"{name} must be a group of settings, got {node!r}")
        return schema(**merge_onto(schema, node, where=name))

    config = Config(
        dataset=section("dataset", DatasetConfig),
        model=_component("model", plain.get("model")),
        head=_component("head", plain.get("head")),
        recipe=section("recipe", RecipeConfig),
        protocol=section("protocol", ProtocolConfig),
        runtime=section("runtime", RuntimeConfig),
        data=section("data", DataConfig),
        seed=_natural("seed", plain.get("seed")),
        runs=_folder("runs", plain.get("runs")),
        cell=plain.get("cell"),
    )
    _check_values(config)
    return config


def _component(group: str, node: Any) -> Component:
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        raise UserError(f"{group} must be a group of settings with a name, got {node!r}")
    kind = node.get("kind")
    if kind is not None and not isinstance(kind, str):
        raise UserError(f"{group}.kind must be a name, got {kind!r}")
    unset = {"pretrained": None, "freeze": "none"}  # left out where they change nothing
    options = {
        key: value
        for key, value in node.items()
        if key not in ("name", "kind") and not (key in unset and value == unset[key])
    }
    return Component(node["name"], options, kind)


def _natural(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"{key} must be a whole number, 0 or more, got {value!r}")
    return value


def _folder(key: str, value: Any) -> str:
    if not isinstance(value, str | int):
        raise UserError(f"{key} must be the name of a folder, got {value!r}")
    return str(value)


def _check_values(config: Config) -> None:
    """Refuse values of the right type that make no sense."""
    dataset, recipe, protocol, runtime = (
        config.dataset,
        config.recipe,
        config.protocol,
        config.runtime,
    )
    positive = {
        "dataset.num_classes": dataset.num_classes,
        "dataset.image_size": dataset.image_size,
        "dataset.channels": dataset.channels,
        "dataset.num_outputs": dataset.num_outputs,
        "recipe.epochs": recipe.epochs,
        "recipe.batch_size": recipe.batch_size,
        "recipe.eval_batch_size": recipe.eval_batch_size,
        "recipe.lr": recipe.lr,
        "data.limit": config.data.limit,
        "runtime.threads": runtime.threads,
    }
    for key, value in positive.items():
        if value is not None and not value > 0:
            raise UserError(f"{key} must be above 0, got {value}")
    for key, value in {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay}.items():
        if not value >= 0:
            raise UserError(f"recipe.{key} must not be negative, got {value}")
    if not 0 <= recipe.label_smoothing < 1:
        raise UserError(f"recipe.label_smoothing must lie in [0, 1), got {recipe.label_smoothing}")
    if (recipe.mean is None) != (recipe.std is None):
        raise UserError("recipe.mean and recipe.std must both be given, or both be null")
    for key, constants in {"mean": recipe.mean, "std": recipe.std}.items():
        if constants is not None and len(constants) not in (1, dataset.channels):
            raise UserError(
                f"recipe.{key} needs one value, or one for each of the {dataset.channels} "
                f"channels of {dataset.name}, got {constants}"
            )
    for part in ("train", "eval"):
        Preparation.of(recipe, part)
    for epoch, lr in recipe.stages.items():
        if not (epoch > 1 and lr > 0):
            raise UserError(
                f"recipe.stages maps a first epoch (2 or later) to a learning rate above 0, "
                f"got {epoch}: {lr}"
            )
    if any(not value > 0 for value in recipe.std or ()):
        raise UserError(f"recipe.std must be above 0, got {recipe.std}")
    if dataset.num_classes is not None and dataset.outputs < dataset.num_classes:
        raise UserError(
            f"dataset.num_outputs ({dataset.outputs}) is below the number of classes "
            f"({dataset.num_classes})"
        )
    _one_of("protocol.select_on", protocol.select_on, ("val", "test"))
    if protocol.select_on == "val" and not 0 < protocol.val_fraction < 1:
        raise UserError(
            f"protocol.val_fraction must lie between 0 and 1 where the validation part selects, "
            f"got {protocol.val_fraction}"
        )
    if protocol.select_on == "test" and protocol.val_fraction != 0:
        raise UserError("protocol.val_fraction must be 0 where the test set selects")
    _one_of("runtime.precision", runtime.precision, ("fp32", "bf16"))
    _one_of("runtime.progress", runtime.progress, ("auto", "bar", "lines", "none"))
    _one_of("runtime.device", runtime.device.partition(":")[0], ("auto", "cpu", "cuda", "mps"))


def _one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise unknown(f"value of {key}", value, allowed)
