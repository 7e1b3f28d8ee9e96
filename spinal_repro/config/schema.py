"""The schema of a run's configuration: frozen dataclasses, and the identity of a run.

A head, backbone, learning-rate rule or augmentation is ``name`` plus options; its options are
checked against the constructor the name stands for (see `registry`). Where one constructor
serves many names (the networks of a library) the component also has a ``kind``.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from spinal_repro.config.preprocessing import Preprocessing
from spinal_repro.errors import UserError

# Names, places and machine settings: none of them changes a bit of a result.
NOT_IN_IDENTITY = {
    "seed", "runs", "cell", "tracker", "data.root", "data.download",
    "dataset.title", "recipe.name", "recipe.published_epochs", "protocol.name",
    "runtime.threads", "runtime.jobs", "runtime.time_limit", "runtime.progress",
    "runtime.save_every", "runtime.debug",
}  # fmt: skip


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
    title: str = MISSING
    source: str = MISSING
    num_classes: int | None = MISSING
    image_size: int | None = MISSING
    channels: int = MISSING
    train_size: int | None = MISSING
    test_size: int | None = MISSING
    val_size: int | None = None
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
        head_epochs: The first so many epochs train the head alone, so that a head on fresh weights
            does not distort the features of pretrained ones (arXiv 2202.10054).
    """

    name: str = MISSING
    epochs: int = MISSING
    published_epochs: int | None = None
    batch_size: int = MISSING
    eval_batch_size: int = 1000
    optimizer: str = MISSING
    lr: float = MISSING
    momentum: float = 0.0
    weight_decay: float = 0.0
    lr_rule: dict[str, Any] = field(default_factory=lambda: {"name": "constant"})
    label_smoothing: float = 0.0
    augment: list[dict[str, Any]] = field(default_factory=list)
    mean: list[float] | None = MISSING  # null: what the model's weights expect
    std: list[float] | None = MISSING
    prepare: dict[str, Any] = field(default_factory=dict)
    stages: dict[int, float] = field(default_factory=dict)
    best_of_last_stage: bool = False
    head_epochs: int = 0


@dataclass(frozen=True)
class ProtocolConfig:
    """Who steers and selects: ``val`` (held out of train) or ``test`` (as published).

    Attributes:
        watch_test: With ``select_on: val``, also write down the test accuracy of each epoch, which
            steers and selects nothing: what selection on the test set would have been worth.
    """

    name: str = MISSING
    select_on: str = MISSING
    val_fraction: float = MISSING
    split_seed: int = 0
    watch_test: bool = False


@dataclass(frozen=True)
class RuntimeConfig:
    """On what a run is computed, and how it shows itself.

    Attributes:
        compile: Whether the model is compiled, which rounds and drops out differently: a run with
            it is another one.
        threads: CPU threads; null for as many as the run began with, or all (of a sweep: an equal
            share).
        jobs: Of a sweep, how many run at once; ``auto`` as many as there are cores or devices for.
        time_limit: Of a job of a sweep, in minutes.
        deterministic: Whether only operations are used that give the same bits each time.
        precision: ``auto`` is ``tf32`` on CUDA and ``fp32`` elsewhere; ``tf32`` lets convolutions
            use TF32, as is PyTorch's default, ``bf16`` is autocast.
        save_every: Seconds between two checkpoints, which are written after epochs; 0 for one
            after every epoch, null for one at the end.
        debug: ``nonfinite`` checks every layer, gradient and weight for NaN and Inf, which is slow.
    """

    device: str = "auto"
    precision: str = "auto"
    channels_last: bool = True
    compile: bool = False
    threads: int | None = None
    jobs: int | str = "auto"
    time_limit: float | None = None
    progress: str = "auto"
    deterministic: bool = False
    save_every: float | None = 15.0
    debug: str = "none"

    def on(self, device: str) -> "RuntimeConfig":
        """The same on a type of device, which decides what precision ``auto`` is.

        Args:
            device: ``cpu``, ``cuda`` or ``mps``.

        Raises:
            UserError: for ``tf32`` on anything but CUDA.
        """
        precision = self.precision
        if precision == "auto":
            precision = "tf32" if device == "cuda" else "fp32"
        if precision == "tf32" and device != "cuda":
            raise UserError(
                f"runtime.precision=tf32 needs an NVIDIA GPU, and this run is on {device}; use "
                f"runtime.precision=auto or fp32"
            )
        return dataclasses.replace(self, device=device, precision=precision)


@dataclass(frozen=True)
class DataConfig:
    """Where data lie, and how much of them is read.

    Attributes:
        root: The folder of data sets.
        download: Fetch what is missing.
        limit: At most this many images a split: a reduced budget.
        test: False drops the test part unseen: trials of a search end without a test accuracy.
    """

    root: str = "data"
    download: bool = False
    limit: int | None = None
    test: bool = True


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
    tracker: Component = field(default_factory=lambda: Component("none", {}))  # see trackers/

    def to_dict(self) -> dict[str, Any]:
        """Plain containers in the shape of the YAML (`validate` accepts it again)."""
        plain = dataclasses.asdict(self)
        plain["model"], plain["head"] = self.model.to_dict(), self.head.to_dict()
        plain["tracker"] = self.tracker.to_dict()
        if self.tracker.name == "none":  # changes nothing
            del plain["tracker"]
        return plain

    def portable(self) -> "Config":
        """The same without the places of one machine: records may travel."""
        data = dataclasses.replace(self.data, root=DataConfig().root)
        silent = Component("none", {})
        return dataclasses.replace(self, data=data, runs="runs", tracker=silent)

    def identity(self) -> str:
        """Eight hex digits naming what is trained, the seed left out.

        A hash of every setting that differs from its default, those of `NOT_IN_IDENTITY` left
        out: a new setting changes no identity where it has its default. A default of a setting
        that counts must never change.
        """
        text = json.dumps(_set_values(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def input_size(self) -> int:
        """Side of the images that the network sees, in pixels."""
        size = self.preprocessing("eval").size
        assert size is not None
        return size

    def preprocessing(self, part: str) -> Preprocessing:
        """What images of ``train`` or ``eval`` are brought to before anything random.

        Where the recipe does not say: the data set's size, and for photographs of any size the
        centre 224 px of 256.
        """
        said, size = Preprocessing.of(self.recipe, part), self.dataset.image_size
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


def _set_values(config: Any, prefix: str = "") -> dict[str, Any]:
    """Fields of a dataclass that differ from their default and count for the identity."""
    found = {}
    for entry in dataclasses.fields(config):
        key, value = f"{prefix}{entry.name}", getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            value = _set_values(value, f"{key}.")
        fresh = entry.default_factory
        default = entry.default if fresh is dataclasses.MISSING else fresh()
        if key not in NOT_IN_IDENTITY and value != default and value != {}:
            found[entry.name] = value
    return found


def schema_keys() -> set[str]:
    """Every key of the schema: groups, and their settings whether or not the YAML gives them."""
    keys = {
        f"recipe.prepare.{part}{key}"
        for part in ("train", "eval")
        for key in ("", *(f".{entry.name}" for entry in dataclasses.fields(Preprocessing)))
    }
    for group in dataclasses.fields(Config):
        keys.add(group.name)
        if dataclasses.is_dataclass(group.type) and group.type is not Component:
            keys |= {f"{group.name}.{entry.name}" for entry in dataclasses.fields(group.type)}
    return keys
