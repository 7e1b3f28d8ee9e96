"""Sizes of models, counted without training, data or pretrained weights."""

from collections.abc import Iterable
from dataclasses import asdict

import torch
from torch import Tensor, nn

from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError
from spinal_repro.models.classifier import Classifier, build_blank
from spinal_repro.models.counting import Counts, count
from spinal_repro.models.heads import HEADS, PRETRAINED
from spinal_repro.paper.cells import Cell
from spinal_repro.paper.regression import INPUTS, make_net
from spinal_repro.records.record import stored_config

_BACKBONES: dict[str, tuple[int, Counts]] = {}  # features and counts, by configuration


def count_cells(cells: Iterable[Cell]) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Count the models of cells; returns counts by cell, and why others cannot be counted."""
    found, refused = {}, {}
    for cell in cells:
        try:
            if cell.regression is not None:
                layers = cell.regression.get("layers", "distinct")
                with torch.device("meta"):
                    net = make_net(cell.regression["net"], layers)  # a head on eight inputs
                found[cell.name] = asdict(count(Classifier(_Features(INPUTS), net), 1, 1))
            elif cell.config:
                found[cell.name] = count_model(stored_config(cell.config))
        except UserError as error:
            refused[cell.name] = str(error)
    return found, refused


def count_model(config: Config) -> dict[str, int]:
    """Count the model of a configuration, as its record should have it; each backbone once."""
    dataset, head = config.dataset, config.head
    shape = dataset.channels, config.input_size
    key = repr((shape, config.model.to_dict()))
    if key not in _BACKBONES or head.name == PRETRAINED:
        built = build_blank(dataset, config.model, head, config.input_size)
        if head.name == PRETRAINED:  # belongs to this backbone
            return asdict(count(built, *shape))
        _BACKBONES[key] = int(built.backbone.num_features), count(built, *shape)  # type: ignore[arg-type]
    features, whole = _BACKBONES[key]
    with torch.device("meta"):
        top = HEADS.build(head.name, head.options, features, dataset.outputs)
    found = asdict(count(Classifier(_Features(features), top), *shape))
    found["body_parameters"] = whole.body_parameters
    found["total_parameters"] += whole.body_parameters
    found["total_multiplications"] += whole.total_multiplications - whole.head_multiplications
    return found


class _Features(nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), self.num_features)
