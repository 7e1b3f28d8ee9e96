"""The schema of a run's configuration as frozen dataclasses, and the identity of a run.

A head, backbone, learning-rate rule or augmentation is a name with options, which are checked
against the signature of its constructor (see `registry`).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from spinal_repro.config.identity import identity_of
from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.errors import UserError
from spinal_repro.seeds import MAX_SEED

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "auc")  # of records/metrics.py

# in `Config.to_dict` only if they are used
OPTIONAL = ("dataset.file", "data.table", "data.file", "protocol.folds", "protocol.fold")


def limit(default: Any = MISSING, **limits: Any) -> Any:
    """A field with limits, checked by `validate`: ``above``, ``least``, ``most``, ``choices``.

    A numeric field accepts a string only if it is the default, e.g. ``auto``.
    """
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class Component:
    """A registered name with its options: one head, backbone, rule or augmentation.

    If ``kind`` is given, it is the registered name, and ``name`` is passed to the constructor:
    ``kind: torchvision``, ``name: resnet18``.
    """

    name: str
    options: dict[str, Any]  # keyword arguments of the constructor
    kind: str | None = None

    @property
    def label(self) -> str:
        """A unique name for folders and tables: torchvision's ``resnet18`` is not timm's."""
        return f"{self.kind}.{self.name}" if self.kind else self.name

    def to_dict(self) -> dict[str, Any]:
        """Convert to the mapping in the YAML."""
        return ({"kind": self.kind} if self.kind else {}) | {"name": self.name, **self.options}


@dataclass(frozen=True)
class DatasetConfig:
    """A data set. Numbers of classes and images are None where they are counted in the files."""

    name: str = MISSING
    title: str = MISSING
    source: str = MISSING  # a registered reader, see data/sources.py
    num_classes: int | None = limit(above=0)
    image_size: int | None = limit(above=0)  # pixels; None: of any size
    channels: int = limit(above=0)
    train_size: int | None = MISSING
    test_size: int | None = MISSING
    val_size: int | None = None  # of a published validation split; None: heldout splits train
    label_offset: int = 0
    num_outputs: int | None = limit(None, above=0)  # logits; None: one for each class
    # on test images only the first outputs count, e.g. without a background class; None: all
    test_outputs: int | None = limit(None, above=0)
    options: dict[str, Any] = field(default_factory=dict)
    file: str | None = None  # with the images or their labels: data.file or data.table

    @property
    def outputs(self) -> int:
        """Number of logits."""
        if (found := self.num_outputs or self.num_classes) is None:
            raise UserError(
                f"dataset={self.name} has no images to count classes in: set dataset.num_classes=N"
            )
        return found


@dataclass(frozen=True)
class RecipeConfig:
    """How a model is trained."""

    name: str = MISSING
    epochs: int = limit(above=0)
    published_epochs: int | None = None  # of the paper's scripts
    batch_size: int = limit(above=0)
    eval_batch_size: int = limit(1000, above=0)
    optimizer: str = MISSING
    lr: float = limit(above=0)
    momentum: float = limit(0.0, least=0)
    nesterov: bool = False  # of sgd
    weight_decay: float = limit(0.0, least=0)
    lr_rule: dict[str, Any] = field(default_factory=lambda: {"name": "constant"})
    backbone_lr_scale: float = limit(1.0, above=0)  # learning rate of the backbone / of the head
    clip_grad: float | None = limit(None, above=0)  # largest norm of the gradient; None: any
    ema: float = 0.0  # decay of the averaged weights, which are evaluated and kept; 0: none
    patience: int = limit(0, least=0)  # stop after so many epochs without improvement; 0: never
    label_smoothing: float = 0.0
    mixup: float = limit(0.0, least=0)  # alpha; 0: off; with cutmix, one is drawn per batch
    cutmix: float = limit(0.0, least=0)
    class_weights: str = limit("none", choices=("none", "balanced"))
    sampler: str = limit("none", choices=("none", "balanced"))
    augment: list[dict[str, Any]] = field(default_factory=list)
    mean: list[float] | None = MISSING  # one, or one per channel; None: that of the model's weights
    std: list[float] | None = MISSING
    # {train: {resize: [272, 272]}, eval: {resize: 256, crop: 256}}, see `Preprocessing`
    prepare: dict[str, Any] = field(default_factory=dict)
    # first epoch: learning rate. A stage starts from the best weights with a reset optimizer, rule
    stages: dict[int, float] = field(default_factory=dict)
    best_of_last_stage: bool = False  # selection ignores earlier stages, as in the original (Q21)
    # train the head alone at first: a fresh head distorts pretrained features (arXiv 2202.10054)
    head_epochs: int = limit(0, least=0)
    cache_features: bool = False  # of a frozen backbone: compute them once, without augmentation
    # after this epoch train in evaluation mode, as one of the original's scripts (Q44); 0: never
    eval_mode_after: int = limit(0, least=0)


@dataclass(frozen=True)
class ProtocolConfig:
    """The split that drives the learning rate and selects the epoch."""

    name: str = MISSING
    select_on: str = limit(choices=("val", "test"))
    # on that split, see records/metrics.py; recipe.lr_rule follows it too
    select_metric: str = limit("accuracy", choices=METRICS)
    val_fraction: float = MISSING
    split_seed: int = limit(0, least=0, most=MAX_SEED)
    folds: int = limit(0, least=0)  # of all images, one of which is the test part; 0: no folds
    fold: int = limit(0, least=0)
    watch_test: bool = False  # also record the test accuracy of each epoch, without using it


@dataclass(frozen=True)
class RuntimeConfig:
    """Device, precision, checkpoints and progress."""

    device: str = limit("auto", choices=("auto", "cpu", "cuda", "mps"))
    # auto: tf32 on CUDA, else fp32; tf32 in convolutions; bf16 is autocast
    precision: str = limit("auto", choices=("auto", "fp32", "tf32", "bf16"))
    channels_last: bool = True
    compile: bool = False
    graph: str = limit("none", choices=("none", "auto"))  # auto: steps as a CUDA graph, on CUDA
    ensemble: int = limit(1, above=0)  # seeds trained together, by scripts/ensemble.py
    threads: int | None = limit(None, above=0, most=4096)  # None: all; in a sweep, an equal share
    jobs: int | str = limit("auto", above=0, most=4096)  # concurrent jobs; auto: one per device
    time_limit: float | None = limit(None, above=0)  # minutes for one job of a sweep
    progress: str = limit("auto", choices=("auto", "bar", "lines", "none"))
    deterministic: bool = False
    save_every: float | None = limit(15.0, least=0)  # seconds; 0: each epoch, None: at the end
    debug: str = limit("none", choices=("none", "nonfinite"))  # nonfinite: find NaN/Inf (slow)

    def on(self, device: str) -> "RuntimeConfig":
        """Copy for ``cpu``, ``cuda`` or ``mps``, with precision and graph ``auto`` resolved."""
        default = "tf32" if device == "cuda" else "fp32"
        precision = default if self.precision == "auto" else self.precision
        if precision == "tf32" and device != "cuda":
            raise UserError(
                f"runtime.precision=tf32 needs an NVIDIA GPU; on {device} use auto, fp32 or bf16"
            )
        graph = self.graph if device == "cuda" else "none"
        return dataclasses.replace(self, device=device, precision=precision, graph=graph)


@dataclass(frozen=True)
class DataConfig:
    """Location of the data sets, and the part of them that is used."""

    root: str = "data"
    download: bool = False
    table: str | None = None  # a CSV of image files and labels, for dataset=table
    file: str | None = None  # for dataset=npz, csv and parquet
    limit: int | None = limit(None, above=0)  # at most this many images per split
    test: bool = True  # False: the test part is not used, as in trials of a search
    # hashes of what the settings above only point to: your own images, a file of weights; computed
    inputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """All settings of one run."""

    dataset: DatasetConfig
    model: Component
    head: Component
    recipe: RecipeConfig
    protocol: ProtocolConfig
    runtime: RuntimeConfig
    data: DataConfig
    seed: int = limit(least=0)
    runs: str = MISSING
    cell: str | None = None  # the published cell that was chosen by paper=TABLE/CELL
    tracker: Component = field(default_factory=lambda: Component("none", {}))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain containers as in the YAML; `validate` accepts the result."""
        plain = dataclasses.asdict(self)
        plain |= {key: getattr(self, key).to_dict() for key in ("model", "head", "tracker")}
        if self.tracker.name == "none":  # the default
            del plain["tracker"]
        for group, _, key in (name.partition(".") for name in OPTIONAL):
            if not plain[group][key]:
                del plain[group][key]
        return plain

    def portable(self) -> "Config":
        """Copy without the folders and tracker of this machine, for records."""
        data = dataclasses.replace(self.data, root=DataConfig().root, table=None, file=None)
        found, none = dataclasses.replace(self.dataset, file=None), Component("none", {})
        return dataclasses.replace(self, dataset=found, data=data, runs="runs", tracker=none)

    def identity(self) -> str:
        """Hash (eight hex digits) of the settings that decide a result, without the seed.

        Settings that have their default are left out, so that a new setting changes no identity;
        the default of a setting that counts must never change.
        """
        return identity_of(self)

    @property
    def input_size(self) -> int:
        """Side of the network's input, in pixels."""
        size = self.preprocessing("eval").size
        assert size is not None
        return size

    def preprocessing(self, part: str) -> Preprocessing:
        """Of ``train`` or ``eval``; by default to the data set's size, or the centre 224 of 256."""
        given, size = Preprocessing.of(self.recipe.prepare, part), self.dataset.image_size
        if given.size is not None:
            return given
        return dataclasses.replace(given, resize=size or 256, crop=size or 224)

    @property
    def run_dir(self) -> Path:
        """The run folder, the same for the same configuration and seed."""
        cell = f"{self.dataset.name}-{self.model.label}-{self.head.name}"
        return Path(self.runs) / cell / f"{self.protocol.name}-{self.identity()}" / f"s{self.seed}"

    @property
    def reduced_budget(self) -> list[str]:
        """Reasons why the budget is below the published one; empty if it is not."""
        epochs, published = self.recipe.epochs, self.recipe.published_epochs or 0
        reasons = [f"{epochs} of {published} epochs"] if epochs < published else []
        if self.data.limit is not None:
            reasons.append(f"at most {self.data.limit} images per split")
        return reasons


SECTIONS: dict[str, Any] = {  # schemas by group; the other groups are components
    entry.name: entry.type
    for entry in dataclasses.fields(Config)
    if dataclasses.is_dataclass(entry.type) and entry.type is not Component
}


def schema_keys() -> set[str]:
    """List every key of the schema, also those that the YAML does not set."""
    keys = {
        f"recipe.prepare.{part}{key}"
        for part in ("train", "eval")
        for key in ("", *(f".{entry.name}" for entry in dataclasses.fields(Preprocessing)))
    }
    for name, schema in SECTIONS.items():
        keys |= {f"{name}.{entry.name}" for entry in dataclasses.fields(schema)}
    return keys.union(entry.name for entry in dataclasses.fields(Config))


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of nested settings; ``recipe.stages`` is one setting."""
    if isinstance(node, Mapping) and node and all(isinstance(key, str) for key in node):
        for key, value in node.items():
            yield from leaves(value, f"{prefix}.{key}".removeprefix("."))
    else:
        yield prefix, node
