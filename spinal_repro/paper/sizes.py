"""Sizes of models, counted without training, data or pretrained weights."""

from collections.abc import Iterable

import torch
from torch import nn

from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError
from spinal_repro.models.classifier import Classifier, build_blank
from spinal_repro.models.counting import count
from spinal_repro.paper.cells import Cell
from spinal_repro.paper.regression import INPUTS, make_net
from spinal_repro.records.record import stored_config

_COUNTS: dict[str, dict[str, int]] = {}  # by configuration of the model


def count_cells(cells: Iterable[Cell]) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Count the models of cells; returns counts by cell, and why others cannot be counted."""
    found, refused = {}, {}
    for cell in cells:
        try:
            if cell.regression is not None:
                layers = cell.regression.get("layers", "distinct")
                with torch.device("meta"):
                    net = make_net(cell.regression["net"], layers)
                found[cell.name] = count(Classifier(nn.Flatten(), net), INPUTS, 1)
            elif cell.config:
                found[cell.name] = count_model(stored_config(cell.config))
        except UserError as error:
            refused[cell.name] = str(error)
    return found, refused


def count_model(config: Config) -> dict[str, int]:
    """Count the model of a configuration, as its record should have it; each model once."""
    dataset, size = config.dataset, config.input_size
    key = repr((dataset.channels, dataset.outputs, size, config.model, config.head))
    if key not in _COUNTS:
        built = build_blank(dataset, config.model, config.head, size)
        _COUNTS[key] = count(built, dataset.channels, size)
    return dict(_COUNTS[key])
