"""The cells of the paper, read from ``configs/paper/``.

A cell is a published result and the configuration that reproduces it. Published numbers are in
``published.csv``; configurations, titles and assumptions in ``<table>/<cell>.yaml``; cells that
``spinal-train`` does not run in ``others.yaml``; tables and shared sentences in ``tables.yaml``.
Nothing here imports torch, and a cell is composed only when its configuration is read.
"""

import csv
import functools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from spinal_repro.errors import UserError, one_of, unknown
from spinal_repro.io import read_yaml

SELECTIONS = (
    "last epoch",
    "best on test",
    "test at best validation",
    "best validation",
    "min over epochs of last mini-batch",
    "unknown",
)
CONFIDENCES = ("quoted", "digitised", "recalled", "not found")
HEAD_KINDS = {"fc": "fc", "linear": "fc", "spinal": "spinal"}  # by choice of head; else "other"


@dataclass(frozen=True)
class Published:
    """One published number, a row of ``published.csv``."""

    metric: str
    value: float | None  # None: could not be found
    unit: str  # % or 1e-3
    selection: str  # who picked the epoch in the original: one of SELECTIONS
    epochs: int | None
    source: str
    confidence: str  # one of CONFIDENCES

    def __post_init__(self) -> None:
        one_of("selection", self.selection, SELECTIONS)
        one_of("confidence", self.confidence, CONFIDENCES)


@dataclass(frozen=True)
class Table:
    """A table of the paper, an entry of ``tables.yaml``."""

    title: str
    margin: float = 1.0  # largest half-width, in percentage points, of a meaningful interval


@dataclass(frozen=True)
class Cell:
    """A published result and the configuration that reproduces it."""

    name: str  # <table>/<cell>, as in spinal-train paper=<table>/<cell>
    table: str
    title: str
    dataset: str  # display name, as backbone and head
    backbone: str
    head: str
    published: tuple[Published, ...]  # the first one is compared with
    head_kind: str = "other"  # fc, spinal or other
    assumptions: tuple[str, ...] = ()
    compose: Callable[[], dict[str, Any]] | None = field(default=None, repr=False, compare=False)
    regression: dict[str, Any] | None = field(default=None, compare=False)  # net, function, epochs
    not_runnable: str | None = None  # the reason
    counterpart: str | None = None  # the FC cell on the same data, backbone and recipe
    variant_of: str | None = None  # the cell of which this is another reading, e.g. as committed
    shorter: str | None = None  # the cell of the same run with fewer epochs, for curves
    best_of: tuple[str, ...] = ()  # for the summary: cells of which the best is compared
    reference: Published | None = None  # for the summary: state of the art named in the paper

    @functools.cached_property
    def config(self) -> dict[str, Any] | None:
        """`Config.to_dict` of the cell, composed on first use; None if it has no configuration."""
        return None if self.compose is None else self.compose()

    @property
    def protocol(self) -> str | None:
        """``paper`` or ``heldout``, as published; None without configuration."""
        return None if self.config is None else str(self.config["protocol"]["name"])

    def refusal(self) -> str | None:
        """Explain why ``spinal-train`` does not run the cell; None if it does."""
        if self.not_runnable:
            return f"the cell {self.name} cannot be run here: {self.not_runnable}"
        if self.best_of:
            return f"{self.name} is the best of other cells; run {', '.join(self.best_of)}"
        if self.regression:
            epochs = self.regression["epochs"]
            return f"{self.name} is trained by another command: spinal regression --epochs {epochs}"
        return None


def load_cells(pattern: str = "*") -> list[Cell]:
    """Return the cells whose name matches, in the order of the paper.

    Args:
        pattern: A name, a table, or a shell pattern over names: ``mnist/*``, ``*/vgg5_*``.
    """
    cells = read_cells(_shipped())
    wanted = f"{pattern}/*" if pattern in tables() else pattern
    found = [cell for cell in cells if fnmatchcase(cell.name, wanted)]
    if not found and any(character in pattern for character in "*?["):
        raise UserError(f"no cell matches '{pattern}'; list them all with: spinal paper list")
    if not found:
        raise unknown("cell", pattern, [cell.name for cell in cells])
    return found


def tables() -> dict[str, Table]:
    """Return the tables by name, in the order of the paper."""
    return {name: Table(**node) for name, node in _common(_shipped())["tables"].items()}


def table_titles() -> dict[str, str]:
    """Return the heading of each table, in the order of the paper."""
    return {name: table.title for name, table in tables().items()}


def curve() -> list[dict[str, Any]]:
    """Return the supplement's 20-epoch curve of the MNIST CNN, digitised from its figure.

    Returns:
        Rows of ``cell``, ``epoch``, ``quantity`` (``mean accuracy %``, ``SD of accuracy``,
        ``mean loss``) and ``value``.
    """
    with (_shipped() / "curve" / "mnist_cnn_curve.csv").open(newline="") as file:
        return [
            {**row, "epoch": int(row["epoch"]), "value": float(row["value"])}
            for row in csv.DictReader(file)
        ]


def _shipped() -> Path:
    from spinal_repro.config.compose import config_dir

    return config_dir() / "paper"


@functools.cache
def _common(folder: Path) -> dict[str, Any]:
    """``tables.yaml``: tables, datasets, sentences."""
    return dict(read_yaml(folder / "tables.yaml"))


@functools.cache
def read_cells(folder: Path) -> tuple[Cell, ...]:
    """Return all cells of a folder like ``configs/paper``, in order."""
    common, numbers = _common(folder), _read_published(folder / "published.csv")
    path = folder / "others.yaml"
    nodes = [(path, name, node) for name, node in read_yaml(path).items()]
    for path in folder.glob("*/*.yaml"):
        nodes.append((path, path.relative_to(folder).with_suffix("").as_posix(), read_yaml(path)))
    cells = []
    for path, name, node in nodes:
        try:
            given = _runnable(name, node) if "defaults" in node else {"name": name, **node}
            given["table"] = name.partition("/")[0]
            one_of("table", given["table"], common["tables"])
            _replace_keys(given, common["sentences"])
            of = name if (name, "result") in numbers else given.get("variant_of")
            (given["reference"],) = numbers.get((name, "reference"), (None,))
            cells.append(Cell(published=tuple(numbers.get((of, "result"), ())), **given))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} does not describe the cell {name}: {error}") from error
    names = [cell.name for cell in cells]
    for name, _ in numbers:
        one_of("cell in published.csv", name, names)
    return tuple(sorted(cells, key=functools.partial(_order, common=common)))


def _runnable(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a cell with a configuration."""
    paper = content["paper"]
    if paper["name"] != name:
        raise UserError(f"paper.name is {paper['name']}")
    choices = {group: choice for entry in content["defaults"] for group, choice in entry.items()}
    kind = HEAD_KINDS.get(choices["override /head"], "other")
    return {"head_kind": kind, "compose": functools.partial(_compose, name), **paper}


def _replace_keys(fields: dict[str, Any], sentences: Mapping[str, str]) -> None:
    """Replace keys of ``tables.yaml`` by their sentences."""
    for key in (texts := fields.get("assumptions", ())):
        if " " not in key:  # else a sentence of this cell alone
            one_of("assumptions", key, sentences)
    fields["assumptions"] = tuple(sentences.get(text, text) for text in texts)
    if why := fields.get("not_runnable"):
        fields["not_runnable"] = sentences.get(why, why)
    fields["best_of"] = tuple(fields.get("best_of", ()))


def _read_published(path: Path) -> dict[tuple[str, str], list[Published]]:
    """Numbers by cell and role, which is ``result`` or ``reference``."""
    found: defaultdict[tuple[str, str], list[Published]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), 2):
            cell, role = row.pop("cell"), row.pop("role")
            try:
                numbers: Any = {key: json.loads(row[key] or "null") for key in ("value", "epochs")}
                one_of("role", role, ("result", "reference"))
                found[cell, role].append(Published(**row | numbers))
            except (TypeError, ValueError) as error:
                raise UserError(f"{path}:{line}: {error}") from error
    return dict(found)


def _compose(name: str) -> dict[str, Any]:
    """The configuration of a cell as records store it: JSON, without paths of this machine."""
    from spinal_repro.config.compose import compose

    stored = compose([f"paper={name}"]).portable().to_dict()
    return dict(json.loads(json.dumps(stored)))


def _order(cell: Cell, common: Mapping[str, Any]) -> tuple[int, int, str, str, str]:
    datasets = common["datasets"]
    known = cell.dataset in datasets
    place = datasets.index(cell.dataset) if known else len(datasets)
    name = re.sub(r"\d+", lambda number: number.group().zfill(4), cell.name)  # 8 before 10
    table = list(common["tables"]).index(cell.table)
    return table, place, "" if known else cell.dataset, cell.backbone, name
