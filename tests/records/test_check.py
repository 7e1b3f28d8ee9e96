"""Checks of contributed records: each on a real record with one thing changed."""

import pytest
from helpers.made_records import committed, regression_record

from spinal_repro.records.check import check_record, check_regression
from spinal_repro.records.correctness import pack_correct
from spinal_repro.records.record import parse_record, stored_config


def check(stored):
    """Problems of a record as JSON; the counts of the committed one stand in for its model's."""
    recount = lambda config: committed(config.head.name)["counts"]  # noqa: E731
    return check_record(parse_record(stored), recount)


def changed(path, value):
    """The committed record with one entry changed, by its dotted path."""
    record = committed()
    *parents, key = [int(part) if part.isdigit() else part for part in path.split(".")]
    node = record
    for parent in parents:
        node = node[parent]
    node[key] = value
    return record


@pytest.mark.parametrize("head", ["fc", "spinal"])
def test_real_records_pass(head):
    assert check(committed(head)) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("config.recipe.warmup", 3, "warmup"),
        ("config.recipe.lr", -1.0, "recipe.lr"),
        ("config.recipe.lr", 0.02, "identity"),
        ("config.protocol.folds", 5, "a fold of a cross-validation"),
        ("seed", 3, "seed is 3"),
        ("counts.head_parameters", 16_559, "counts.head_parameters"),
        ("counts.layers", 3, "counts.layers"),
        ("data.sizes", {"train": 59_999, "val": 0, "test": 10_000}, "59999 of 60000"),
        ("data.sizes", {}, "missing"),
        ("data.sizes.test", 9_999, "data.sizes.test is 9999"),
        ("history", committed()["history"][:-1], "epochs 1 to 8"),
        ("history", committed()["history"][::-1], "epochs 1 to 8"),
        ("selection.on", "val", "selection.on is val"),
        ("selection.epoch", 2, "epoch 8 is the best"),
        ("selection.accuracy", 0.999, "selection.accuracy"),
        ("test.last.accuracy", 0.99, "test.last.accuracy"),
        ("test.last.correct", 9900, "test.last.correct"),
        ("test.selected.count", 9_900, "test.selected.count"),
        ("test.last.correct_bits", pack_correct([True] * 9_000 + [False] * 1_000), "correct_bits"),
        ("test.last.correct_bits", "AAAA", "correct_bits cannot be read"),
        ("test", None, "no test accuracy"),
    ],
)
def test_contradictions_are_found(path, value, message):
    found = check(changed(path, value))
    assert any(message in line for line in found), found


def test_the_last_stage_alone_selects_where_the_recipe_says_so():
    """The first epoch of the new stage is worse than the epochs before (Q21)."""
    record = committed()
    recipe = record["config"]["recipe"]
    recipe["stages"], recipe["best_of_last_stage"] = {"7": 0.001}, True  # JSON has text as keys
    for entry, correct in zip(record["history"][-3:], (9900, 9700, 9808), strict=True):
        entry["test_correct"], entry["test_accuracy"] = correct, correct / 10_000
    record["identity"] = stored_config(record["config"]).identity()
    assert check(record) == []
    recipe["best_of_last_stage"] = False
    record["identity"] = stored_config(record["config"]).identity()
    assert "epoch 6 is the best" in check(record)[0]


def test_records_of_the_regression_have_every_seed():
    whole = regression_record()
    assert check_regression(parse_record(whole)) == []
    short = {**whole, "runs": whole["runs"][:-1]}
    assert "seeds of 0 to 3 for spinal, product" in check_regression(parse_record(short))[0]
    longer = {**whole, "settings": {**whole["settings"], "epochs": 300}}
    assert check_regression(parse_record(longer)) == ["runs has no entry at epoch 300"]
