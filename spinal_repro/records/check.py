"""Checks of a contributed record against its own configuration and history."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from math import isclose

from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError
from spinal_repro.records.correctness import unpack_correct
from spinal_repro.records.record import Accuracy, Record, RegressionRecord, stored_config

Recount = Callable[[Config], Mapping[str, int]]


def check_record(record: Record, recount: Recount) -> list[str]:
    """List what is wrong in a run's record; ``recount`` counts the model of a configuration."""
    try:
        config = stored_config(record.config)
        return [*_setting(record, config, recount), *_results(record, config)]
    except UserError as error:
        return [str(error)]
    except (KeyError, TypeError) as error:  # a value missing from data, history or git
        return [f"a value is missing or of the wrong type: {error}"]


def _setting(record: Record, config: Config, recount: Recount) -> Iterator[str]:
    if record.identity != config.identity():
        yield f"identity is {record.identity}, but its configuration gives {config.identity()}"
    if record.seed != config.seed:
        yield f"seed is {record.seed}, but config.seed is {config.seed}"
    counts = dict(recount(config))
    for key in sorted(counts.keys() | record.counts.keys()):
        if record.counts.get(key) != counts.get(key):
            yield f"counts.{key} is {record.counts.get(key)}, but its model has {counts.get(key)}"
    if config.runtime.ensemble > 1:
        yield "it is of an ensemble (scripts/ensemble.py), not of a single run"
    if config.protocol.folds:
        yield "it is a fold of a cross-validation, not a run on the published test part"
    sizes, dataset = record.data["sizes"], config.dataset
    if config.data.limit is None and dataset.val_size is None:
        if dataset.train_size not in (None, sizes["train"] + sizes["val"]):
            yield f"data.sizes has {sizes['train'] + sizes['val']} of {dataset.train_size} images"
        if dataset.test_size not in (None, sizes["test"]):
            yield f"data.sizes.test is {sizes['test']} of {dataset.test_size} images"


def _results(record: Record, config: Config) -> Iterator[str]:
    history, selection, epochs = record.history, record.selection, config.recipe.epochs
    if 0 < config.recipe.patience == len(history) - selection.epoch:
        epochs = min(epochs, len(history))
    if [entry["epoch"] for entry in history] != list(range(1, epochs + 1)):
        yield f"history is not that of the epochs 1 to {epochs}"
        return
    if selection.on != config.protocol.select_on:
        yield f"selection.on is {selection.on}, but protocol.select_on {config.protocol.select_on}"
        return
    stages = [e for e in config.recipe.stages if e <= epochs]
    first = max(stages, default=1) if config.recipe.best_of_last_stage else 1
    metric = config.protocol.select_metric
    score = f"{selection.on}_{'correct' if metric == 'accuracy' else metric}"
    best = max(history[first - 1 :], key=lambda entry: entry[score])
    if selection.epoch != best["epoch"]:
        yield f"selection.epoch is {selection.epoch}, but epoch {best['epoch']} is the best"
    elif selection.accuracy != best[f"{selection.on}_accuracy"]:
        yield f"selection.accuracy is not the accuracy of epoch {selection.epoch} in history"
    if record.test is None:
        yield "it has no test accuracy: it was trained with data.test=false"
        return
    for part, found, epoch in (
        ("last", record.test.last, epochs),
        ("selected", record.test.selected, selection.epoch),
    ):
        if found.correct != history[epoch - 1].get("test_correct", found.correct):
            yield f"test.{part}.correct is not that of epoch {epoch} in history"
        yield from _accuracy(found, f"test.{part}", record.data["sizes"]["test"])


def _accuracy(found: Accuracy, where: str, images: int) -> Iterator[str]:
    if found.count != images:
        yield f"{where}.count is {found.count}, but the test part has {images} images"
        return
    if not isclose(found.accuracy, found.correct / found.count, abs_tol=1e-9):
        yield f"{where}.accuracy is not {found.correct} / {found.count}"
    bits = found.correct_bits
    if bits is not None and unpack_correct(bits, found.count).sum() != found.correct:
        yield f"{where}.correct_bits does not have {found.correct} correct images"


def check_regression(record: RegressionRecord) -> list[str]:
    """List what is missing from a record of ``spinal regression``; empty if it is complete."""
    seeds, epochs = record.settings.seeds, record.settings.epochs
    found = {(run.net, run.function, run.seed) for run in record.runs if run.epochs == epochs}
    if not found:
        return [f"runs has no entry at epoch {epochs}"]
    nets, functions = (sorted({run[i] for run in found}) for i in (0, 1))
    return [
        f"runs lacks seeds of 0 to {seeds - 1} for {net}, {function} at epoch {epochs}"
        for net, function in itertools.product(nets, functions)
        if {run[2] for run in found if run[:2] == (net, function)} != set(range(seeds))
    ]
