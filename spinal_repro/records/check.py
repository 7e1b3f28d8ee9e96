"""Checks on a record before it stands among the committed ones: does it hold together?

What it says of itself is recomputed: identity, streams, counts, accuracies and the selected
epoch. Nothing here imports torch; who counts the model is given.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError
from spinal_repro.records.correctness import unpack_correct
from spinal_repro.records.store import stored_config
from spinal_repro.seeds import stream_seed

NEEDED = (
    "config", "identity", "seed", "streams", "environment", "git", "finished", "data", "counts",
    "reduced_budget", "selection", "test", "history", "timing", "wall_seconds",
)  # fmt: skip
HASH = re.compile(r"[0-9a-f]{64}")
CLOSE = 1e-9

Recount = Callable[[Config], Mapping[str, int]]


def check_record(record: Mapping[str, Any], recount: Recount) -> list[str]:
    """What does not hold together in the record of a run; empty if all does.

    Args:
        record: As read.
        recount: Counts the model of a configuration.
    """
    missing = [key for key in NEEDED if record.get(key) is None]
    if missing:
        return [f"it lacks {', '.join(missing)}"]
    wrong = list(_not_finite(record))
    if wrong:
        return wrong
    try:
        config = stored_config(record["config"])
        return [*_configuration(record, config, recount), *_outcome(record, config)]
    except UserError as error:
        return [str(error)]
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        return [f"it is not built as a record: {type(error).__name__}: {error}"]


def _not_finite(value: Any, where: str = "") -> Iterator[str]:
    """Every number that is infinite or none; JSON as Python reads it can hold them."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is {value}"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{where}[{index}]")


def _configuration(record: Mapping[str, Any], config: Config, recount: Recount) -> Iterator[str]:
    """Identity, seed, streams, budget, counts and data against the configuration."""
    if record["identity"] != config.identity():
        yield f"identity is {record['identity']}, its configuration gives {config.identity()}"
    if record["seed"] != config.seed:
        yield f"seed is {record['seed']}, in its configuration {config.seed}"
    for stream, found in record["streams"].items():
        if found != stream_seed(config.seed, stream):
            yield f"stream '{stream}' is not that of seed {config.seed}"
    if record["reduced_budget"] != config.reduced_budget:
        yield f"reduced_budget is {record['reduced_budget']}, expected {config.reduced_budget}"
    if record["environment"]["device"] != config.runtime.device:
        yield (
            f"environment.device is {record['environment']['device']}, "
            f"runtime.device {config.runtime.device}"
        )
    if not record["history"]:
        yield "it has no history: not a finished run"
    counts = dict(recount(config))
    for key in sorted(counts.keys() | record["counts"].keys()):
        if record["counts"].get(key) != counts.get(key):
            yield f"counts.{key} is {record['counts'].get(key)}, its model has {counts.get(key)}"
    yield from _data(record["data"], config)


def _data(data: Mapping[str, Any], config: Config) -> Iterator[str]:
    for key in ("train_hash", "test_hash", "split_hash"):
        if not isinstance(data[key], str) or not HASH.fullmatch(data[key]):
            yield f"data.{key} is no SHA-256: {data[key]!r}"
    sizes, dataset = data["sizes"], config.dataset
    whole = config.data.limit is None and dataset.val_size is None
    if whole and dataset.train_size not in (None, sizes["train"] + sizes["val"]):
        yield f"data.sizes has {sizes['train']} + {sizes['val']} of {dataset.train_size} images"
    if whole and dataset.test_size not in (None, sizes["test"]):
        yield f"data.sizes.test is {sizes['test']}, the data set has {dataset.test_size}"


def _outcome(record: Mapping[str, Any], config: Config) -> Iterator[str]:
    """History, selection and accuracies against each other."""
    history, selection, test = record["history"], record["selection"], record["test"]
    on = config.protocol.select_on
    epochs = config.recipe.epochs
    if [entry["epoch"] for entry in history] != list(range(1, epochs + 1)):
        yield f"history does not have the epochs 1 to {epochs}"
        return
    if selection["on"] != on:
        yield f"selection.on is {selection['on']}, protocol.select_on {on}"
        return
    count = record["data"]["sizes"][on]
    for entry in history:
        if not _same(entry[f"{on}_accuracy"], entry[f"{on}_correct"] / count):
            yield f"history: {on}_accuracy of epoch {entry['epoch']} is not {on}_correct / {count}"
    best = _selected_epoch(history, config)
    if selection["epoch"] != best:
        yield f"selection.epoch is {selection['epoch']}, its rule picks {best}"
    elif selection["accuracy"] != history[best - 1][f"{on}_accuracy"]:
        yield "selection.accuracy is not that of the selected epoch in history"
    for part in ("last", "selected"):
        yield from _accuracy(test[part], f"test.{part}", record["data"]["sizes"]["test"])
    if on == "test" or config.protocol.watch_test:
        yield from _on_test(test, history, best)


def _selected_epoch(history: Sequence[Mapping[str, Any]], config: Config) -> int:
    """The first epoch with the highest accuracy, of the last stage where that alone counts."""
    first = 1
    if config.recipe.best_of_last_stage:
        first = max((e for e in config.recipe.stages if e <= len(history)), default=1)
    key = f"{config.protocol.select_on}_correct"
    return int(max(history[first - 1 :], key=lambda entry: entry[key])["epoch"])


def _on_test(
    test: Mapping[str, Any], history: Sequence[Mapping[str, Any]], best: int
) -> Iterator[str]:
    """Where the test set selects, history has what the final evaluations must find again."""
    for part, entry in (("last", history[-1]), ("selected", history[best - 1])):
        if test[part]["correct"] != entry["test_correct"]:
            yield f"test.{part}.correct is not that of epoch {entry['epoch']} in history"
    highest = max(entry["test_accuracy"] for entry in history)
    if test["best_on_test"]["accuracy"] != highest:
        yield f"test.best_on_test is not the highest test accuracy in history, {highest}"


def _accuracy(part: Mapping[str, Any], where: str, size: int) -> Iterator[str]:
    correct, count = part["correct"], part["count"]
    if count != size:
        yield f"{where}.count is {count}, the test part has {size} images"
    if type(correct) is not int or not 0 <= correct <= count:
        yield f"{where}.correct is {correct}, of {count} images"
        return
    if not _same(part["accuracy"], correct / count):
        yield f"{where}.accuracy is {part['accuracy']}, {correct} of {count} are {correct / count}"
    bits = part.get("correct_bits")  # younger than some records
    if bits is not None and int(unpack_correct(bits, count).sum()) != correct:
        yield f"{where}.correct_bits does not have {correct} images right"


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=0, abs_tol=CLOSE)


def check_regression(record: Mapping[str, Any]) -> list[str]:
    """What does not hold together in a record of ``spinal regression``; empty if all does."""
    wrong = list(_not_finite(record))
    try:
        settings, rows = record["settings"], record["runs"]
        seeds = set(range(settings["seeds"]))
        by_cell: dict[tuple[str, str, int], dict[int, Mapping[str, Any]]] = {}
        for row in rows:
            key = (row["net"], row["function"], row["epochs"])
            if row["seed"] in by_cell.setdefault(key, {}):
                wrong.append(f"runs has {key} twice with seed {row['seed']}")
            by_cell[key][row["seed"]] = row
        grid = {(n, f) for n, f, _ in by_cell}
        if len(grid) != len({n for n, _ in grid}) * len({f for _, f in grid}) or not grid:
            wrong.append("runs lacks a function for one of the nets")
        if max((e for _, _, e in by_cell), default=0) != settings["epochs"]:
            wrong.append(f"runs does not reach epoch {settings['epochs']}")
        for key, runs in sorted(by_cell.items()):
            if set(runs) != seeds:
                wrong.append(f"runs has not the seeds 0 to {len(seeds) - 1} for {key}")
            for seed, row in runs.items():
                earlier = [
                    r[seed] for k, r in by_cell.items() if k[:2] == key[:2] and k[2] < key[2]
                ]
                if any(row["published_metric"] > e["published_metric"] for e in earlier):
                    wrong.append(f"the minimum of {key} rises with the epochs for seed {seed}")
    except (KeyError, TypeError, ValueError) as error:
        wrong.append(f"it is not built as a record: {type(error).__name__}: {error}")
    return wrong
