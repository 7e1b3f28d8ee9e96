"""The cells of the paper, read from ``configs/paper/``.

A cell is a published result and the configuration that reproduces it. Published numbers are in
``published.csv``; configurations, titles and assumptions in ``<table>/<cell>.yaml``; cells that
``spinal-train`` does not run in ``others.yaml``; tables and shared sentences in ``tables.yaml``.
Nothing here imports torch, and a cell is composed only when its configuration is read.
"""

import csv
import difflib
import functools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from spinal_repro.config.compose import compose, config_dir
from spinal_repro.errors import UserError, one_of, unknown
from spinal_repro.io import read_yaml

HEAD_KINDS = {"fc": "fc", "linear": "fc", "spinal": "spinal"}  # by choice of head; else "other"


@dataclass(frozen=True)
class Published:
    """One published number, a row of ``published.csv``."""

    metric: str
    value: float | None  # None: could not be found
    unit: str  # % or 1e-3
    selection: str  # how the original picked the epoch: last epoch, best on test, ...
    epochs: int | None
    source: str
    confidence: str  # quoted, digitised, recalled or not found


Numbers = dict[tuple[str, str], list[Published]]


@dataclass(frozen=True)
class Table:
    """A table of the paper, an entry of ``tables.yaml``."""

    title: str
    margin: float = 1.0  # percentage points; see results/verdicts.py


@dataclass(frozen=True)
class Cell:
    """A published result and the configuration that reproduces it."""

    name: str  # <table>/<cell>, as in spinal-train paper=<table>/<cell>
    table: str
    title: str
    dataset: str  # display name, as backbone and head
    backbone: str
    head: str
    published: tuple[Published, ...]  # the first one is the one to compare with
    head_kind: str = "other"  # fc, spinal or other
    data: str | None = None  # name in the catalog of data sets
    assumptions: tuple[str, ...] = ()  # made where the original is unclear
    assumes: tuple[str, ...] = ()  # names in tables.yaml of those that have one
    compose: Callable[[], dict[str, Any]] | None = field(default=None, repr=False, compare=False)
    regression: dict[str, Any] | None = field(default=None, compare=False)  # net, function, ...
    not_runnable: str | None = None  # the reason
    counterpart: str | None = None  # the FC cell on the same data, backbone and recipe
    variant_of: str | None = None  # the cell of which this is a variant, e.g. as committed
    shorter: str | None = None  # the cell of the same training with fewer epochs, for curves
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

    @property
    def result(self) -> Published:
        """The published number to compare with; its value may be unknown."""
        return self.published[0] if self.published else Published("", None, "%", "", None, "", "")

    def refusal(self) -> str | None:
        """Explain why ``spinal-train`` does not run the cell; None if it does."""
        if self.not_runnable:
            return f"the cell {self.name} cannot be run here: {self.not_runnable}"
        if self.best_of:
            return f"{self.name} is the best of other cells; run {', '.join(self.best_of)}"
        if self.regression:
            given = [key for key in ("epochs", "layers") if key in self.regression]
            words = " ".join(f"--{key} {self.regression[key]}" for key in given)
            return f"{self.name} is trained by another command: spinal regression {words}"
        return None


def load_cells(pattern: str = "*") -> list[Cell]:
    """Return cells in the order of the paper, by name, table or pattern (``*/vgg5_*``)."""
    cells = read_cells(config_dir() / "paper")
    wanted = f"{pattern}/*" if pattern in tables() else pattern
    found = [cell for cell in cells if fnmatchcase(cell.name, wanted)]
    if not found:
        names = [*tables(), *(cell.name for cell in cells)]
        near = difflib.get_close_matches(pattern, names, 1, 0.7)
        hint = f"did you mean '{near[0]}'?" if near else "list them all with: spinal paper list"
        raise UserError(f"there is no cell or table '{pattern}'; {hint}")
    return found


def claimed_differences(cells: Sequence[Cell]) -> dict[str, float]:
    """Return the published difference, without sign, of each cell and its counterpart, by name.

    A counterpart of several cells has the smallest one.
    """
    values = {cell.name: cell.result.value for cell in cells}
    found: dict[str, float] = {}
    for cell in cells:
        names = cell.name, cell.counterpart or ""
        ours, theirs = (values.get(name) for name in names)
        if ours is not None and theirs is not None:
            claimed = round(abs(ours - theirs), 6)
            found |= {name: min(claimed, found.get(name, claimed)) for name in names}
    return found


@functools.cache
def tables() -> dict[str, Table]:
    """Return the tables by name, in the order of the paper."""
    nodes = _common(config_dir() / "paper")["tables"]
    return {name: Table(**node) for name, node in nodes.items()}


@functools.cache
def _common(folder: Path) -> dict[str, Any]:
    """Read ``tables.yaml``: tables, datasets, sentences."""
    return dict(read_yaml(folder / "tables.yaml"))


@functools.cache
def read_cells(folder: Path) -> tuple[Cell, ...]:
    """Return all cells of a folder like ``configs/paper``, in order."""
    common, numbers = _common(folder), _read_published(folder / "published.csv")
    path = folder / "others.yaml"
    nodes = {name: (path, {"name": name, **node}) for name, node in read_yaml(path).items()}
    for path in folder.glob("*/*.yaml"):
        name = path.relative_to(folder).with_suffix("").as_posix()
        nodes[name] = path, read_yaml(path)
    if unknown_names := {name for name, _ in numbers} - set(nodes):
        raise unknown("cell of published.csv:", min(unknown_names), nodes)
    cells = []
    for name, (path, node) in nodes.items():
        try:
            cells.append(_cell(name, node, common, numbers))
        except (LookupError, TypeError, ValueError) as error:
            raise UserError(f"{path} does not describe the cell {name}: {error}") from error
    return tuple(sorted(cells, key=functools.partial(_order, common=common)))


def _cell(name: str, node: dict[str, Any], common: Mapping[str, Any], numbers: Numbers) -> Cell:
    given = {"table": name.partition("/")[0], **node.get("paper", node)}
    one_of("table", given["table"], common["tables"])
    one_of("name", given.get("name", ""), [name])
    given.setdefault("title", f"{given['dataset']}, {given['backbone']}, {given['head']}")
    if "defaults" in node:
        chosen = {group: choice for entry in node["defaults"] for group, choice in entry.items()}
        given["head_kind"] = HEAD_KINDS.get(chosen["override /head"], "other")
        given["data"] = chosen["override /dataset"]
        given["compose"] = functools.partial(_compose, name)
    sentences, texts = common["sentences"], given.get("assumptions", ())
    given["assumes"] = tuple(text for text in texts if text in sentences)
    given["assumptions"] = tuple(sentences.get(text, text) for text in texts)
    if why := given.get("not_runnable"):
        given["not_runnable"] = sentences.get(why, why)
    given["best_of"] = tuple(given.get("best_of", ()))
    of = name if (name, "result") in numbers else given.get("variant_of", "")
    given["published"] = tuple(numbers.get((of, "result"), ()))
    (given["reference"],) = numbers.get((name, "reference"), (None,))
    return Cell(**given)


def _read_published(path: Path) -> Numbers:
    """Read the numbers by cell and role, which is ``result`` or ``reference``."""
    found = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            of = row.pop("cell"), row.pop("role")
            numbers: Any = {key: json.loads(row[key] or "null") for key in ("value", "epochs")}
            found[of].append(Published(**row | numbers))
    return dict(found)


def _compose(name: str) -> dict[str, Any]:
    """Compose the configuration of a cell as in records: JSON without paths of this machine."""
    stored = compose([f"paper={name}"]).portable().to_dict()
    return dict(json.loads(json.dumps(stored)))


def _order(cell: Cell, common: Mapping[str, Any]) -> tuple[int, int, str, str, str]:
    datasets = common["datasets"]
    place = datasets.index(cell.dataset) if cell.dataset in datasets else len(datasets)
    name = re.sub(r"\d+", lambda number: number.group().zfill(4), cell.name)  # 8 before 10
    table = list(common["tables"]).index(cell.table)
    return table, place, cell.dataset, cell.backbone, name
