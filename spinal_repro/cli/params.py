"""Sizes of the shipped models with the shipped heads, counted without training or data."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spinal_repro.config.compose import compose, config_dir
from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError
from spinal_repro.models.classifier import Classifier, Counts, build_model, count
from spinal_repro.models.heads import HEADS
from spinal_repro.paper.cells import Cell
from spinal_repro.paper.regression import INPUTS, make_net
from spinal_repro.records.record import stored_config
from spinal_repro.results.tables import Column

BASELINE = "fc"

# The data set that a model is counted on where none is named; all others see photographs.
DATASETS = dict.fromkeys(("arch2", "cnn", "flatten", "lenet5", "vgg5"), "mnist") | dict.fromkeys(
    (
        "cifar_cnn",
        "densenet",
        "resnet18_thin",
        "resnet34_thin",
        "vgg11_bn",
        "vgg13_bn",
        "vgg16_bn",
        "vgg19_bn",
    ),
    "cifar10",
)
PHOTOGRAPHS = "hymenoptera"
# Made for larger photographs; Inception v3's auxiliary output cannot do with less.
IMAGE_SIZES = dict.fromkeys(("inception_v3", "inception_v4", "inception_resnet_v2"), 299)


@dataclass
class Sizes:
    """Rows of a table of sizes, and compositions that do not fit: model, head, why."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)


def shipped(group: str) -> list[str]:
    """The names of a configuration group."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def sizes(overrides: Sequence[str] = ()) -> Sizes:
    """Count compositions.

    Args:
        overrides: Hydra overrides. Where they name no model, every shipped one is counted, where
            they name no head, every head; ``model=cnn,vgg5`` counts those. Where they name no data
            set, each model has the one of `DATASETS`.

    Raises:
        UserError: where nothing that is named can be built.
    """
    named = {key: value for key, _, value in (o.partition("=") for o in overrides)}
    rest = [o for o in overrides if o.partition("=")[0] not in ("model", "head", "dataset")]
    models, heads = _names("model", named), _names("head", named)
    heads.sort(key=lambda name: name != BASELINE)
    counter = _Counter()
    found = Sizes()
    for model in models:
        dataset = named.get("dataset", DATASETS.get(model, PHOTOGRAPHS))
        given = [f"model={model}", f"dataset={dataset}", *rest]
        if "dataset" not in named and model in IMAGE_SIZES:
            given.insert(2, f"dataset.image_size={IMAGE_SIZES[model]}")
        try:
            base = counter(compose([*_without_head_options(given), f"head={BASELINE}"]))
        except UserError as error:
            found.refused.append((model, "any head", str(error)))
            continue
        for head in heads:
            try:
                counts = counter(compose([*given, f"head={head}"]))
            except UserError as error:
                found.refused.append((model, head, str(error)))
                continue
            row = {"dataset": dataset, "model": model, "head": head}
            found.rows.append(row | counts.to_dict() | _changes(counts, base))
    if not found.rows and found.refused:
        raise UserError(found.refused[0][-1])
    return found


def cell_counts(cells: Iterable[Cell]) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Count the models of published cells.

    Args:
        cells: From `spinal_repro.paper.cells.load_cells`.

    Returns:
        Counts by the name of the cell, and why the others could not be counted.
    """
    counter = _Counter()
    found, refused = {}, {}
    for cell in cells:
        try:
            if cell.regression is not None:
                found[cell.name] = _count_regression(cell.regression).to_dict()
            elif cell.config:
                found[cell.name] = counter(stored_config(cell.config)).to_dict()
        except UserError as error:
            refused[cell.name] = str(error)
    return found, refused


def recount(config: Config) -> dict[str, int]:
    """Count the model of one configuration, as its record should have it."""
    return _Counter()(config).to_dict()


def _count_regression(regression: Mapping[str, Any]) -> Counts:
    """The toy regression's nets are heads on eight inputs."""
    with torch.device("meta"):
        net = make_net(regression["net"], regression.get("layers", "distinct"))
    return count(Classifier(_Features(INPUTS), net), 1, 1)


def _names(group: str, named: dict[str, str]) -> list[str]:
    given = named.get(group)
    return shipped(group) if given is None else given.split(",")


def _without_head_options(overrides: Sequence[str]) -> list[str]:
    """Overrides that suit any head: ``head.width=10`` is not for the baseline."""
    return [o for o in overrides if not o.lstrip("+~").startswith("head.")]


class _Features(nn.Module):
    """In the place of a backbone that has been counted."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` to blank features ``[N, D]``."""
        return images.new_zeros(len(images), self.num_features)


class _Counter:
    """Counts compositions, each backbone once."""

    def __init__(self) -> None:
        self._bodies: dict[str, tuple[int, Counts]] = {}

    def __call__(self, config: Config) -> Counts:
        dataset, head = config.dataset, config.head
        shape = (dataset.channels, config.input_size)
        key = repr((shape, config.model.to_dict()))
        if key not in self._bodies:
            classifier = _build(config)
            counts = count(classifier, *shape)
            self._bodies[key] = (int(classifier.backbone.num_features), counts)  # type: ignore[arg-type]
            return counts
        features, body = self._bodies[key]
        with torch.device("meta"):
            top = HEADS.build(head.name, head.options, features, dataset.outputs)
        counts = count(Classifier(_Features(features), top), *shape)
        body_multiplications = body.total_multiplications - body.head_multiplications
        return dataclasses.replace(
            counts,
            body_parameters=body.body_parameters,
            total_parameters=body.body_parameters + counts.head_parameters,
            total_multiplications=body_multiplications + counts.head_multiplications,
        )


def _build(config: Config) -> Classifier:
    """On PyTorch's meta device, where weights take neither memory nor time; none are loaded."""
    options = {k: v for k, v in config.model.options.items() if k != "pretrained"}
    model = dataclasses.replace(config.model, options=options)
    try:
        with torch.device("meta"):
            return build_model(config.dataset, model, config.head, image_size=config.input_size)
    except NotImplementedError:  # some backbones compute with values while they are built
        return build_model(config.dataset, model, config.head, image_size=config.input_size)


def _changes(counts: Counts, base: Counts) -> dict[str, float | None]:
    """Changes in percent against the fully connected head on the same model."""
    return {
        f"{name}_change": 100 * (getattr(counts, name) / getattr(base, name) - 1)
        if getattr(base, name)
        else None
        for name in ("head_parameters", "head_multiplications", "total_multiplications")
    }


def _number(value: int) -> str:
    return f"{value:,}"


def _percent(value: float) -> str:
    return f"{value:+.2f}"


_CHANGE = "change in percent against head=fc on the same model and data set"

COLUMNS = (
    Column("dataset", "Data set"),
    Column("model", "Model"),
    Column("head", "Head"),
    Column("body_parameters", "Body params", "trainable parameters of the backbone", _number),
    Column("head_parameters", "Head params", "trainable parameters of the head", _number),
    Column("head_parameters_change", "Head params vs FC %", _CHANGE, _percent),
    Column("total_parameters", "Total params", "both together", _number),
    Column(
        "head_multiplications",
        "Head mult",
        "multiplications of the head for one image; a layer called twice counts twice",
        _number,
    ),
    Column("head_multiplications_change", "Head mult vs FC %", _CHANGE, _percent),
    Column("total_multiplications", "Total mult", "with those of the backbone", _number),
    Column("total_multiplications_change", "Total mult vs FC %", _CHANGE, _percent),
    Column("head_activations", "Activations", "hidden units of the head, logits not counted"),
)
