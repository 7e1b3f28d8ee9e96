"""The record of a run: one small JSON, enough to rebuild every table without retraining.

Nothing here imports torch, so that listing runs is quick.
"""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from spinal_repro.errors import UserError
from spinal_repro.io import read_json, write_json
from spinal_repro.records.convert import Range, from_plain, to_plain

if TYPE_CHECKING:
    from spinal_repro.config.schema import Config

# A new key with a default needs no new version. Version 2 changed `Config.identity`.
SCHEMA_VERSION, CONFIG_VERSION = 2, 1
RETIRED = ("self_check",)  # runtime settings of older records, without effect on results

Share = Annotated[float, Range(0, 1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
TEXTS = "dataset.name model.name head.name protocol.name protocol.select_on runtime.precision"
NEEDED: dict[str, Any] = {  # in the mappings of the record of a run
    **{f"config.{key}": str for key in TEXTS.split()},
    "config.recipe.epochs": Positive,
    "environment.device": str,
    "data.sizes": dict[str, Natural],
    "data.normalisation.mean": list[float],
    "data.normalisation.std": list[float],
}


@dataclass(frozen=True)
class Selection:
    """The selected epoch, and its accuracy on the part that selects."""

    on: Literal["val", "test"]
    rule: str
    epoch: Positive
    accuracy: Share


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on the test part."""

    accuracy: Share
    correct: Natural
    count: Positive
    loss: float
    interval_95: list[float]
    correct_bits: str | None = None  # which images were right, see `correctness`
    metrics: dict[str, float] | None = None  # others, see `metrics`; None: an older record

    def __post_init__(self) -> None:
        if self.correct > self.count:
            raise UserError(f"correct is {self.correct} of {self.count} images")


@dataclass(frozen=True)
class Highest:
    """Highest test accuracy of all epochs."""

    accuracy: Share


@dataclass(frozen=True)
class TestResult:
    """Evaluations on the test part."""

    __test__ = False  # pytest collects by name

    last: Accuracy
    selected: Accuracy
    best_on_test: Highest | None = None  # where the test part was read after every epoch


@dataclass(frozen=True)
class Record:
    """A finished run."""

    run: str
    config: dict[str, Any]  # see `Config.to_dict`
    identity: str
    seed: Natural
    streams: dict[str, int]
    environment: dict[str, Any]
    git: dict[str, Any]
    finished: str
    data: dict[str, Any]
    counts: dict[str, Natural]
    pretrained: dict[str, Any] | None
    reduced_budget: list[str]
    selection: Selection
    test: TestResult | None  # None: not used (``data.test=false``)
    history: list[dict[str, float]]  # by epoch, like timing
    timing: list[dict[str, float]]
    wall_seconds: float
    images_per_second: float

    @property
    def cell(self) -> str | None:
        """Name of the published cell that the run was started as."""
        return self.config.get("cell")

    @property
    def protocol(self) -> str:
        return str(self.config["protocol"]["name"])

    @property
    def epochs(self) -> int:
        return int(self.config["recipe"]["epochs"])

    @property
    def device(self) -> str:
        return str(self.environment["device"])

    @property
    def precision(self) -> str:
        return str(self.config["runtime"]["precision"])


@dataclass(frozen=True)
class RegressionSettings:
    """Options of ``spinal regression``."""

    seeds: Positive  # how many, from 0
    epochs: Positive
    target: str
    layers: str


@dataclass(frozen=True)
class RegressionRun:
    """One net, function and seed after some epochs; mean square errors."""

    net: str
    function: str
    epochs: Positive
    seed: Natural
    published_metric: float
    train_mse: float
    fresh_mse: float
    fresh_variance: float


@dataclass(frozen=True)
class RegressionRecord:
    """All runs of one ``spinal regression``."""

    kind: ClassVar = "regression"
    settings: RegressionSettings
    environment: dict[str, Any]
    git: dict[str, Any]
    finished: str
    seconds: float
    summary: list[dict[str, Any]]
    runs: list[RegressionRun]


@dataclass(frozen=True)
class GradientRun:
    """Norms of the gradient before the activation of each hidden layer of one stack."""

    net: str  # fc or spinal
    depth: Positive  # number of hidden layers
    seed: Natural
    multiplications: Positive
    start: list[float]  # by layer, at the first step
    epoch: list[float]  # by layer, mean over the steps of the first epoch


@dataclass(frozen=True)
class GradientRecord:
    """All runs of one ``spinal gradients``, with its options."""

    kind: ClassVar = "gradients"
    dataset: str
    seeds: Positive  # how many, from 0
    depths: list[Annotated[int, Range(2)]]
    init: str
    data: dict[str, Any]  # as in the record of a run
    environment: dict[str, Any]
    git: dict[str, Any]
    finished: str
    seconds: float
    runs: list[GradientRun]

    def __post_init__(self) -> None:
        wanted = set(itertools.product(("fc", "spinal"), self.depths, range(self.seeds)))
        whole = [r for r in self.runs if len(r.start) == len(r.epoch) == r.depth]
        if wrong := wanted ^ {(run.net, run.depth, run.seed) for run in whole}:
            raise UserError(f"runs lacks or adds net, depth, seed {min(wrong)}")


AnyRecord = Record | RegressionRecord | GradientRecord


def load_record(path: Path) -> AnyRecord:
    """Read a record of any kind."""
    stored = read_json(path)
    try:
        return parse_record(stored)
    except UserError as error:
        raise UserError(f"{path} is not a valid record: {error}") from None


def parse_record(stored: Any) -> AnyRecord:
    """Check a record read from JSON; a record of version 1 gets a new identity."""
    if not isinstance(stored, dict):
        raise UserError(f"it must be a mapping, got {type(stored).__name__}")
    fields = dict(stored)
    version, kind = fields.pop("schema_version", None), fields.pop("kind", None)
    check_version(version, 1, SCHEMA_VERSION)
    if kind == RegressionRecord.kind:
        return from_plain(RegressionRecord, fields)
    if kind == GradientRecord.kind:
        return from_plain(GradientRecord, fields)
    record = from_plain(Record, fields)
    for where, kind in NEEDED.items():
        value: Any = fields
        for key in where.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            raise UserError(f"{where} is missing")
        from_plain(kind, value, where)
    if version == SCHEMA_VERSION:
        return record
    config = stored_config(record.config)
    run = "/".join(config.run_dir.parts[-3:])
    return replace(record, identity=config.identity(), run=run)


def check_version(version: Any, *known: int) -> None:
    """Refuse a file of another version of the schema."""
    if type(version) is not int or version not in known:
        raise UserError(
            f"schema_version is {version!r}, not {known[-1]}; use the spinal_repro that wrote it"
        )


def read_record(path: Path) -> Record:
    """Read the record of a run."""
    record = load_record(path)
    if not isinstance(record, Record):
        raise UserError(f"{path} is a record of spinal {record.kind}, not of a run")
    return record


def write_record(path: Path, record: AnyRecord) -> None:
    """Write a record as indented JSON."""
    kind = {} if isinstance(record, Record) else {"kind": record.kind}
    write_json(path, {"schema_version": SCHEMA_VERSION, **kind, **to_plain(record)})


def class_names(data: dict[str, Any], outputs: int) -> list[str]:
    """Name each output: by its class in a record's ``data``, else by its number."""
    names = list(data.get("classes") or ())
    return names + [str(number) for number in range(len(names), outputs)]


def stored_config(config: dict[str, Any]) -> "Config":
    """Validate a stored configuration; settings younger than it have today's defaults."""
    from spinal_repro.config.validate import validate

    if not isinstance(config, dict):
        raise UserError(f"the configuration must be a mapping, got {type(config).__name__}")
    config = dict(config)
    check_version(config.pop("schema_version", CONFIG_VERSION), CONFIG_VERSION)
    if isinstance(runtime := config.get("runtime"), dict):
        config["runtime"] = {key: v for key, v in runtime.items() if key not in RETIRED}
    return validate(config)
