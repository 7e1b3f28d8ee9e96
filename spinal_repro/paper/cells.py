"""The paper as data: published cells, read from ``configs/paper/<table>/<cell>.yaml``.

A cell is one row of the paper (or of the works around it) with the configuration that reproduces
it, where its number was found, and every assumption made where the sources are silent. This module
never imports torch; composing a cell's configuration waits until somebody asks for it.
"""

import difflib
import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from spinal_repro.errors import UserError, unknown
from spinal_repro.io import read_yaml

TABLES: dict[str, str] = {
    "regression": "Regression (Table I)",
    "mnist": "MNIST family, from scratch",
    "cifar10": "CIFAR-10, from scratch",
    "cifar100": "CIFAR-100, from scratch",
    "transfer": "Transferred initialisation",
    "docstring": "ResNet-101 rows in a script's docstring",
    "summary": "Best of SpinalNet against the state of the art of June 2020",
    "curve": "MNIST CNN over 20 epochs (supplement)",
    "progressive": "ProgressiveSpinalNet (arXiv 2103.11373)",
    "shared": "SpinalNet with shared weights",
    "notebooks": "Runs saved in the authors' notebooks",
    "others": "Results of others",
    "controls": "Beyond the paper: what makes the difference",
}

# Data sets as people read them, in the paper's order; others follow by name.
DATASETS = (
    "MNIST", "Fashion-MNIST", "Kuzushiji-MNIST", "QMNIST", "EMNIST-Digits", "EMNIST-Letters",
    "EMNIST-Balanced", "CIFAR-10", "CIFAR-100", "Caltech-101", "Bird-225", "Stanford Cars",
    "SVHN", "CINIC-10", "STL-10", "Oxford 102 Flowers", "Fruits-360",
)  # fmt: skip

SELECTIONS = (
    "last epoch",
    "best on test",
    "test at best validation",
    "best validation",
    "min over epochs of last mini-batch",
    "unknown",
)
CONFIDENCES = ("quoted", "digitised", "recalled", "not found")


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        metric: What was measured, e.g. ``accuracy %``.
        value: The number; None for a row of the paper whose number could not be found.
        unit: ``%`` or ``1e-3``.
        selection: Who picked the epoch in the original: one of `SELECTIONS`.
        epochs: How many epochs the original ran.
        source: Where the number was found.
        confidence: One of `CONFIDENCES`.
    """

    metric: str
    value: float | None
    unit: str
    selection: str
    epochs: int | None
    source: str
    confidence: str


@dataclass(frozen=True)
class Cell:
    """One row of a table of the paper.

    Attributes:
        name: ``<table>/<cell>``, what ``spinal-train paper=`` takes.
        table: A key of `TABLES`.
        title: For headings.
        dataset: As people read it, as are ``backbone`` and ``head``.
        published: The numbers; the first one is the one compared with.
        assumptions: What was decided where the sources are silent or broken, citing quirks.
        compose: Composes its configuration; None where it has none.
        regression: For cells of ``spinal regression``: ``{net, function, epochs}``.
        not_runnable: Why it cannot be run here.
        counterpart: The fully connected cell on the same data, backbone and recipe.
        variant_of: The cell whose published numbers this one is held against in another reading,
            e.g. as committed.
        best_of: For the summary: the cells whose best is the row.
        reference: For the summary: the state of the art that the paper names.
    """

    name: str
    table: str
    title: str
    dataset: str
    backbone: str
    head: str
    published: tuple[Published, ...]
    assumptions: tuple[str, ...] = ()
    compose: Callable[[], dict[str, Any]] | None = field(default=None, repr=False, compare=False)
    regression: dict[str, Any] | None = field(default=None, compare=False)
    not_runnable: str | None = None
    counterpart: str | None = None
    variant_of: str | None = None
    best_of: tuple[str, ...] = ()
    reference: Published | None = None

    @functools.cached_property
    def config(self) -> dict[str, Any] | None:
        """Its configuration (`Config.to_dict`), composed at the first use; None where none is."""
        return None if self.compose is None else self.compose()

    @property
    def protocol(self) -> str | None:
        """The protocol under which it was published: ``paper``, or ``heldout``."""
        return None if self.config is None else str(self.config["protocol"]["name"])

    def refusal(self) -> str | None:
        """Why ``spinal-train`` does not run it and what to do instead; None if it does."""
        if self.not_runnable:
            return f"the cell {self.name} cannot be run here: {self.not_runnable}"
        if self.best_of:
            return f"{self.name} is the best of other cells; run {', '.join(self.best_of)}"
        if self.regression:
            epochs = self.regression["epochs"]
            return f"{self.name} is trained by another command: spinal regression --epochs {epochs}"
        return None


def load_cells(pattern: str = "*", folder: Path | None = None) -> list[Cell]:
    """Every cell whose name matches, in the order of the paper.

    Args:
        pattern: A name, a table, or a shell pattern over names: ``mnist/*``, ``*/vgg5_*``.
        folder: Where the cells lie; the shipped ones unless given.

    Raises:
        UserError: where nothing matches, with the nearest name.
    """
    cells = _read(folder or _shipped())
    wanted = f"{pattern}/*" if pattern in TABLES else pattern
    found = [cell for cell in cells if fnmatchcase(cell.name, wanted)]
    if not found:
        if any(character in pattern for character in "*?["):
            names = [cell.name for cell in cells]
            near = difflib.get_close_matches(pattern.replace("*", ""), names, n=1, cutoff=0)
            raise UserError(f"no cell matches '{pattern}'; a name is e.g. {near[0]}")
        raise unknown("cell", pattern, [cell.name for cell in cells])
    return found


def curve() -> list[dict[str, Any]]:
    """The supplement's 20-epoch curve of the MNIST CNN, read off the figure.

    Returns:
        Rows of ``cell``, ``head``, ``epoch``, ``quantity`` (``mean accuracy %``, ``SD of
        accuracy``, ``mean loss``) and ``value``.
    """
    import csv

    path = _shipped() / "curve" / "mnist_cnn_curve.csv"
    cells = {cell.head: cell.name for cell in load_cells("curve")}
    with path.open(newline="") as file:
        return [
            {**row, "cell": cells[row["head"]], "epoch": int(row["epoch"])}
            | {"value": float(row["value"])}
            for row in csv.DictReader(file)
        ]


def _shipped() -> Path:
    from spinal_repro.config.compose import config_dir

    return config_dir() / "paper"


@functools.cache
def _read(folder: Path) -> tuple[Cell, ...]:
    nodes: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*/*.yaml")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        try:
            content = read_yaml(path)
            nodes[name] = {**content["paper"], "composes": "defaults" in content}
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} does not describe a cell: {error}") from error
    cells = []
    for name, node in nodes.items():
        if "published" not in node and node.get("variant_of") in nodes:
            node["published"] = nodes[node["variant_of"]]["published"]
        try:
            cells.append(_cell(name, node))
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder / name}.yaml does not describe a cell: {error}") from error
    return tuple(sorted(cells, key=_order))


def _cell(name: str, given: Mapping[str, Any]) -> Cell:
    node = dict(given)
    composes = node.pop("composes")
    known = {entry.name for entry in fields(Cell)} - {"table", "compose"}
    for key in node:
        if key not in known:
            raise unknown(f"key of the cell {name}:", key, known)
    node["table"] = name.partition("/")[0]
    if node["table"] not in TABLES:
        raise unknown("table", node["table"], TABLES)
    node["published"] = tuple(_published(name, entry) for entry in node.get("published") or ())
    if node.get("reference") is not None:
        node["reference"] = _published(name, node["reference"])
    for key in ("assumptions", "best_of"):
        node[key] = tuple(node.get(key) or ())
    missing = [e.name for e in fields(Cell) if e.default is MISSING and e.name not in node]
    if missing:
        raise UserError(f"the cell {name} lacks {', '.join(missing)}")
    if node["name"] != name:
        raise UserError(f"the cell {name} calls itself {node['name']}")
    return Cell(**node, compose=functools.partial(_compose, name) if composes else None)


def _published(name: str, node: Mapping[str, Any]) -> Published:
    found = Published(**node)
    for noun, value, allowed in (
        ("selection", found.selection, SELECTIONS),
        ("confidence", found.confidence, CONFIDENCES),
    ):
        if value not in allowed:
            raise unknown(f"{noun} in the cell {name}:", value, allowed)
    return found


def _compose(name: str) -> dict[str, Any]:
    """The configuration of a cell as records store it: JSON, without paths of this machine."""
    from spinal_repro.config.compose import compose

    stored = compose([f"paper={name}"]).portable().to_dict()
    return dict(json.loads(json.dumps(stored)))


def _order(cell: Cell) -> tuple[int, int, str, str, str]:
    place = DATASETS.index(cell.dataset) if cell.dataset in DATASETS else len(DATASETS)
    table = list(TABLES).index(cell.table)
    name = re.sub(r"\d+", lambda number: number.group().zfill(4), cell.name)  # 8 before 10
    return table, place, "" if place < len(DATASETS) else cell.dataset, cell.backbone, name
