"""Cells and records for tests, made from committed ones: whole, and changed where a test asks."""

import copy
import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spinal_repro.paper.cells import Cell, Published
from spinal_repro.records.record import parse_record
from spinal_repro.records.statistics import binomial_interval
from spinal_repro.results.cells import group_records_by_cell
from spinal_repro.results.outcomes import ResultGroup

RECORDS = Path(__file__).parents[2] / "results" / "records"
CELLS = {"fc": "cnn_fc", "spinal": "cnn_spinal8"}


@functools.cache
def path_of(head: str) -> Path:
    """The committed record of the MNIST CNN with this head, protocol paper, seed 0."""
    (path,) = (RECORDS / "mnist").glob(f"{CELLS[head]}-paper-*-s0.json")
    return path


def committed(head: str = "fc") -> dict[str, Any]:
    """The same as JSON stores it; a new copy each time."""
    return dict(json.loads(path_of(head).read_text()))


def grouped(cells: Sequence[Cell], stored: Iterable[dict[str, Any]]) -> list[ResultGroup]:
    """Results of records as JSON stores them."""
    return group_records_by_cell(cells, map(parse_record, stored))


def made(
    which: str = "fc",
    seed: int = 0,
    correct: int = 9800,
    *,
    epochs: int = 8,
    identity: str | None = None,
    **config: dict[str, Any],
) -> dict[str, Any]:
    """A record whose test accuracy is ``correct`` of 10,000 at the last and selected epoch.

    Args:
        which: The head, ``fc`` or ``spinal``.
        config: Settings to change by group, e.g. ``recipe={"lr": 0.1}``.
    """
    record = committed(which)
    record["seed"] = record["config"]["seed"] = seed
    record["config"]["recipe"]["epochs"] = epochs
    for group, settings in config.items():
        record["config"][group].update(settings)
    low, high = binomial_interval(correct, 10_000)
    part = {"accuracy": correct / 10_000, "correct": correct, "interval_95": [low, high]}
    for name in ("last", "selected"):
        record["test"][name].update(part)
    record["test"]["best_on_test"] = {"accuracy": correct / 10_000}
    record["identity"] = identity or record["identity"]
    return record


def heldout(record: dict[str, Any], validation: float = 0.99) -> dict[str, Any]:
    """The same record under the other protocol."""
    record = copy.deepcopy(record)
    record["config"]["protocol"] = {
        "name": "heldout", "select_on": "val", "val_fraction": 0.1, "split_seed": 0,
    }  # fmt: skip
    record["selection"].update({"on": "val", "accuracy": validation})
    del record["test"]["best_on_test"]
    record["identity"] = "held" + record["identity"][4:]
    return record


def cell(name: str, head: str = "fc", value: float | None = 98.2, **changes: Any) -> Cell:
    """A cell with the configuration of the committed records."""
    selection = changes.pop("selection", "last epoch")
    published = Published("accuracy %", value, "%", selection, 8, "page 1", "quoted")
    config = changes.pop("config", committed(head)["config"] | {"cell": name})
    return Cell(
        **{
            "name": name,
            "table": name.partition("/")[0],
            "title": f"MNIST, CNN, {head}",
            "dataset": "MNIST",
            "backbone": "CNN",
            "head": head,
            "head_kind": head,
            "published": (published,),
            "compose": None if config is None else lambda: config,
            **changes,
        }
    )


FC = cell("mnist/cnn_fc")
SPINAL = cell("mnist/cnn_spinal8", "spinal", counterpart="mnist/cnn_fc")


def regression_record(seeds: int = 4, epochs: int = 200, **settings: str) -> dict[str, Any]:
    """A record of the regression; the metric of seed s is (s + 1) * 1e-3, at 200 epochs half."""
    rows = [
        {"net": net, "function": function, "epochs": checkpoint, "seed": seed}
        | {"published_metric": (seed + 1) * (1e-3 if checkpoint < 200 else 0.5e-3)}
        | {"train_mse": 0.0, "fresh_mse": 0.0, "fresh_variance": 0.0}
        for net in ("normal", "spinal")
        for function in ("sum", "product")
        for checkpoint in sorted({min(100, epochs), epochs})
        for seed in range(seeds)
    ]
    usual = {"seeds": seeds, "epochs": epochs, "target": "column", "layers": "distinct"}
    same = {key: committed()[key] for key in ("schema_version", "environment", "git", "finished")}
    more = {"kind": "regression", "settings": usual | settings, "seconds": 1.0, "summary": []}
    return same | more | {"runs": rows}


def gradient_record(fc: float = 0.1, spinal: float = 1.0, seeds: int = 4) -> dict[str, Any]:
    """A record of gradients; the first layer's norm is about this share of the last one's."""
    runs = []
    for net, share in (("fc", fc), ("spinal", spinal)):
        for depth, seed in ((depth, seed) for depth in (2, 3) for seed in range(seeds)):
            norms = [share * (seed + 1), 7.0, float(seed + 1)][-depth:]
            norms[0] = share * (seed + 1) * (1 + 1e-3 * (-1) ** seed * (net == "spinal"))
            about = {"net": net, "depth": depth, "seed": seed, "multiplications": 1}
            runs.append(about | {"start": norms, "epoch": norms})
    same = {key: committed()[key] for key in ("schema_version", "environment", "git", "finished")}
    options = {"dataset": "mnist", "seeds": seeds, "depths": [2, 3], "init": "default"}
    return same | options | {"kind": "gradients", "data": {}, "seconds": 1.0, "runs": runs}
