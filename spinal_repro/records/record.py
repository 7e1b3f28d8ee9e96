"""The record of a run: one small JSON, enough to rebuild every table without retraining.

Nothing here imports torch, so that listing runs is quick.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from spinal_repro.errors import UserError
from spinal_repro.io import read_json, write_json
from spinal_repro.records.convert import Range, from_plain, to_plain

if TYPE_CHECKING:
    from spinal_repro.config.schema import Config

# A new key with a default is not a new version. Version 2 has another `Config.identity`.
SCHEMA_VERSION, CONFIG_VERSION = 2, 1
REGRESSION = "regression"
RETIRED = ("self_check",)  # settings of runtime in older records; none changed a result
NEEDED = ("dataset.name", "model.name", "head.name", "recipe.epochs", "protocol.name",
          "protocol.select_on", "runtime.precision")  # fmt: skip

Share = Annotated[float, Range(0, 1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]


@dataclass(frozen=True)
class Selection:
    """The selected epoch, and its accuracy on the part that selects."""

    on: Literal["val", "test"]
    rule: str
    epoch: Positive
    accuracy: Share


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on the test part.

    ``correct_bits`` holds which images were right, see `correctness`; older records have none.
    """

    accuracy: Share
    correct: Natural
    count: Positive
    loss: float
    interval_95: list[float]
    correct_bits: str | None = None

    def __post_init__(self) -> None:
        if self.correct > self.count:
            raise UserError(f"correct is {self.correct} of {self.count} images")


@dataclass(frozen=True)
class Highest:
    """Highest test accuracy of all epochs."""

    accuracy: Share


@dataclass(frozen=True)
class TestResult:
    """Evaluations on the test part; ``best_on_test`` where it was read after every epoch."""

    __test__ = False  # pytest collects by name

    last: Accuracy
    selected: Accuracy
    best_on_test: Highest | None = None


@dataclass(frozen=True)
class Record:
    """A finished run.

    ``config`` is what `Config.to_dict` gives; ``history`` and ``timing`` have one entry per epoch;
    ``test`` is None where the test part was not used (``data.test=false``).
    """

    run: str
    config: dict[str, Any]
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
    test: TestResult | None
    history: list[dict[str, float]]
    timing: list[dict[str, float]]
    wall_seconds: float
    images_per_second: float

    def __post_init__(self) -> None:
        for key in NEEDED:
            group, _, name = key.partition(".")
            settings = self.config.get(group)
            if not isinstance(settings, dict) or settings.get(name) is None:
                raise UserError(f"config.{key} is missing")
        if not isinstance(self.environment.get("device"), str):
            raise UserError("environment.device is missing")

    @property
    def cell(self) -> str | None:
        """Name of the published cell that the run was started as."""
        return self.config.get("cell")

    @property
    def protocol(self) -> str:
        """Name of its protocol."""
        return str(self.config["protocol"]["name"])

    @property
    def epochs(self) -> int:
        """Number of epochs run."""
        return int(self.config["recipe"]["epochs"])

    @property
    def device(self) -> str:
        """Type of device, e.g. ``cpu``."""
        return str(self.environment["device"])

    @property
    def precision(self) -> str:
        """E.g. ``fp32``."""
        return str(self.config["runtime"]["precision"])


@dataclass(frozen=True)
class RegressionSettings:
    """Options of ``spinal regression``; ``seeds`` is their number, from 0."""

    seeds: Positive
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

    settings: RegressionSettings
    environment: dict[str, Any]
    git: dict[str, Any]
    finished: str
    seconds: float
    summary: list[dict[str, Any]]
    runs: list[RegressionRun]


AnyRecord = Record | RegressionRecord


def load_record(path: Path) -> AnyRecord:
    """Read a record of either kind."""
    try:
        return parse_record(read_json(path))
    except UserError as error:
        raise UserError(f"{path} is not a valid record: {error}") from None


def parse_record(stored: Any) -> AnyRecord:
    """Check a record as JSON stores it; one of version 1 gets the identity it has today."""
    if not isinstance(stored, dict):
        raise UserError(f"it must be a mapping, got {type(stored).__name__}")
    version = stored.get("schema_version")
    check_version(version, 1, SCHEMA_VERSION)
    fields = {key: item for key, item in stored.items() if key not in ("schema_version", "kind")}
    if stored.get("kind") == REGRESSION:
        return from_plain(RegressionRecord, fields)
    record = from_plain(Record, fields)
    if version == SCHEMA_VERSION:
        return record
    config = stored_config(record.config)
    run = "/".join(config.run_dir.parts[-3:])
    return replace(record, identity=config.identity(), run=run)


def check_version(version: Any, *known: int) -> None:
    """Refuse a file of another version of the schema."""
    if type(version) is not int or version not in known:
        raise UserError(
            f"schema version is {version!r}, expected {known[-1]}; use the version of "
            f"spinal_repro that wrote it, or a newer one"
        )


def read_record(path: Path) -> Record:
    """Read the record of a run."""
    record = load_record(path)
    if not isinstance(record, Record):
        raise UserError(f"{path} is a record of spinal regression, not of a run")
    return record


def write_record(path: Path, record: AnyRecord) -> None:
    """Write a record as indented JSON."""
    kind = {} if isinstance(record, Record) else {"kind": REGRESSION}
    write_json(path, {"schema_version": SCHEMA_VERSION, **kind, **to_plain(record)})


def stored_config(config: dict[str, Any]) -> "Config":
    """Validate a configuration read from a record, a run folder or a cell.

    Settings younger than the file have today's defaults.
    """
    from spinal_repro.config.validate import validate

    if not isinstance(config, dict):
        raise UserError(f"the configuration must be a mapping, got {type(config).__name__}")
    check_version(config.get("schema_version", CONFIG_VERSION), CONFIG_VERSION)
    config = {key: value for key, value in config.items() if key != "schema_version"}
    if isinstance(runtime := config.get("runtime"), dict):
        config["runtime"] = {key: v for key, v in runtime.items() if key not in RETIRED}
    return validate(config)
