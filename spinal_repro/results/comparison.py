"""Groups of one's own runs, compared seed by seed, or fold by fold, with the rules of the results.

A group is all runs that differ in seed and fold alone. Every group is compared with every earlier
one, and the p-values are adjusted for the number of these comparisons.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from spinal_repro.config.schema import leaves
from spinal_repro.errors import UserError, one_of
from spinal_repro.records import statistics
from spinal_repro.records.record import Record, read_record
from spinal_repro.records.statistics import Paired, as_family
from spinal_repro.records.store import RECORD, record_files
from spinal_repro.results.accuracy import bounds
from spinal_repro.results.outcomes import grouped
from spinal_repro.results.pairs import HASHES, compare_images

ACCURACY = "accuracy"
SHOWN = 4  # settings in the name of a group
Key = tuple[int, int]  # fold and seed


@dataclass(frozen=True)
class Finished:
    """A finished run with a test result."""

    folder: Path
    record: Record

    @property
    def key(self) -> Key:
        return self.record.config["protocol"].get("fold") or 0, self.record.seed

    def value(self, metric: str, epoch: str = "selected") -> float:
        """A test metric, in percent."""
        found: Any = getattr(self.record.test, epoch)
        metrics = {**(found.metrics or {}), ACCURACY: found.accuracy}
        if metric not in metrics:
            one_of("--metric", metric, sorted(metrics))
        return 100 * float(metrics[metric])


@dataclass(frozen=True)
class Group:
    """Runs of one configuration, by fold and seed."""

    label: str
    runs: Mapping[Key, Finished]

    @property
    def first(self) -> Record:
        return next(iter(self.runs.values())).record

    @property
    def order(self) -> tuple[bool, int]:
        """Sort key: FC heads first, then by size."""
        return self.first.config["head"]["name"] != "fc", self.first.counts["head_parameters"]

    @property
    def best(self) -> Finished:
        """The run that was best on the part that selected its epoch."""
        metric = self.first.config["protocol"].get("select_metric", ACCURACY)

        def score(run: Finished) -> float:
            selected = run.record.selection
            return run.record.history[selected.epoch - 1][f"{selected.on}_{metric}"]

        return max(self.runs.values(), key=score)

    @property
    def folds(self) -> int:
        """Number of folds of a cross-validation; 0 without."""
        return int(self.first.config["protocol"].get("folds", 0))

    @property
    def overlap(self) -> float:
        """Test images per training image of a fold; 0 without a cross-validation."""
        sizes = self.first.data["sizes"]
        return sizes["test"] / (sizes["train"] + sizes["val"]) if self.folds else 0.0


@dataclass(frozen=True)
class Comparison:
    """The second group against the first, in percentage points of a metric."""

    first: Group
    second: Group
    paired: Paired
    last: Paired  # with the last epoch of each run instead of the selected one
    images: tuple[float, float] | None  # interval for the finite test set, of a single pair

    @property
    def interval(self) -> tuple[float, float] | None:
        return self.paired.interval or self.images

    @property
    def size(self) -> float:
        """Parameters of the second head per parameter of the first."""
        heads = [group.first.counts["head_parameters"] for group in (self.second, self.first)]
        return heads[0] / max(heads[1], 1)

    @property
    def verdict(self) -> str:
        if side := self.paired.side():
            return "better" if side > 0 else "worse"
        return f"undecided, {self.paired.missing()}"

    def __str__(self) -> str:
        """The answer in one sentence."""
        found = f"{self.second.label} against {self.first.label}: {self.paired.mean:+.2f} points"
        found += bounds(self.interval)
        unit = "folds" if self.first.folds else "pairs" if self.paired.n > 1 else "pair"
        times = "as many" if times_as(self.size) == "1" else f"{times_as(self.size)} times the"
        return f"{found}, {self.paired.n} {unit}: {self.verdict}; its head has {times} parameters"


def times_as(value: float) -> str:
    """Format a multiple with two digits."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def read_runs(places: Iterable[Path]) -> list[Finished]:
    """Read the finished runs in folders of one run or of many, once each."""
    found: dict[Path, Finished] = {}
    for place in places:
        if not place.is_dir():
            raise UserError(f"there is no folder {place}; list finished runs with: spinal status")
        paths = [path for path in record_files(place) if path.name == RECORD]
        if not paths:
            raise UserError(f"no finished run in {place}; list them with: spinal status")
        for path in paths:
            record = read_record(path)
            if record.test is not None:
                found.setdefault(path.parent.resolve(), Finished(path.parent, record))
    return list(found.values())


def group_runs(runs: Sequence[Finished]) -> list[Group]:
    """Group runs by their settings, FC heads first, and name what is not equal in all."""
    settings = {id(run): _settings(run.record.config) for run in runs}
    by_settings = grouped(runs, lambda run: json.dumps(settings[id(run)], sort_keys=True))
    of = [settings[id(members[0])] for members in by_settings.values()]
    keys = {key: None for each in of for key in each}
    differing = [k for k in keys if len({json.dumps(each.get(k)) for each in of}) > 1]
    for left_out in (("head.", "recipe.name"), ("recipe.name",)):  # if needed, all options of heads
        more = [[f"{k} {v.get(k)}" for k in differing if not k.startswith(left_out)] for v in of]
        heads = [head_label(runs[0].record.config["head"]) for runs in by_settings.values()]
        labels = [
            ", ".join([head, *rest[:SHOWN], *["..."] * (len(rest) > SHOWN)])
            for head, rest in zip(heads, more, strict=True)
        ]
        if len(set(labels)) == len(labels):
            break
    groups = [
        Group(label, {run.key: run for run in sorted(members, key=lambda run: run.key)})
        for label, members in zip(labels, by_settings.values(), strict=True)
    ]
    return sorted(groups, key=lambda group: group.order)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that tell groups of runs apart, by key."""
    parts = {k: config[k] for k in ("dataset", "model", "head", "recipe", "protocol")}
    parts["data"] = {k: v for k, v in config["data"].items() if k not in ("root", "download")}
    runtime = config["runtime"]
    parts["runtime"] = {"precision": runtime["precision"], "ensemble": runtime.get("ensemble", 1)}
    return {k: v for k, v in leaves(parts) if k not in ("protocol.fold", "dataset.title")}


def head_label(head: Mapping[str, Any]) -> str:
    """Name a head by its kind and sizes: ``Spinal 4 x 128``, ``FC 512``, ``Linear``."""
    name = str(head["name"])
    if name == "fc":
        return f"FC {' x '.join(map(str, head['hidden']))}" if head.get("hidden") else "Linear"
    if {"layers", "width"} <= head.keys() and isinstance(head["layers"], int):
        return f"{name.capitalize()} {head['layers']} x {head['width']}"
    return name.capitalize()


def compare(groups: Sequence[Group], metric: str = ACCURACY) -> list[Comparison]:
    """Compare each group with every earlier one; the last is that of the last with the first.

    Groups without a seed in common on the same images are not compared; if none has, that is an
    error. A single group has no comparison.
    """
    both = sorted(combinations(groups, 2), key=lambda pair: pair[0] is groups[0])
    found = [made for pair in both if (made := _compare(*pair, metric))]
    if both and not found:
        raise UserError("no two of these groups have a seed in common on the same images")
    families = [as_family(getattr(c, name) for c in found) for name in ("paired", "last")]
    each = zip(found, *families, strict=True)
    return [replace(made, paired=paired, last=last) for made, paired, last in each]


def _compare(first: Group, second: Group, metric: str) -> Comparison | None:
    """Pair two groups by fold and seed; each fold is one pair, the mean over its seeds."""
    keys = [key for key in first.runs if key in second.runs]
    pairs = [(first.runs[key], second.runs[key]) for key in keys]
    pairs = [(a, b) for a, b in pairs if all(a.record.data[h] == b.record.data[h] for h in HASHES)]
    if not pairs:
        return None

    def paired(epoch: str) -> Paired:
        found = [(a.key, b.value(metric, epoch) - a.value(metric, epoch)) for a, b in pairs]
        values = by_fold(found) if first.folds else [value for _, value in found]
        return Paired(tuple(round(value, 9) for value in values), overlap=first.overlap)

    images = None
    tested = [run.record.test.selected for run in pairs[0] if run.record.test]
    if len(pairs) == 1 and metric == ACCURACY and (alone := compare_images(*tested)):
        images = statistics.image_interval(*alone, tested[0].count)
    return Comparison(first, second, paired("selected"), paired("last"), images)


def by_fold(found: Iterable[tuple[Key, float]]) -> list[float]:
    """Means of each fold over its seeds."""
    of_fold = grouped(found, lambda item: item[0][0])
    return [statistics.mean([value for _, value in items]) for items in of_fold.values()]
