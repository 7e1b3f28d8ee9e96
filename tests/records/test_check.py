"""Every check of a contributed record, each on a real record with one thing spoilt."""

import copy
import json
import re

import pytest
from helpers.made_records import committed, regression_record

from spinal_repro.records.check import check_record, check_regression
from spinal_repro.records.correctness import pack_correct
from spinal_repro.records.store import stored_config


def recount(config):
    """The counts of a whole record stand in for those of its model."""
    return committed(config.head.name)["counts"]


@pytest.mark.parametrize("head", ["fc", "spinal"])
def test_real_records_hold_together(head):
    assert check_record(committed(head), recount) == []


def spoil(path, value):
    """A change of one entry, by its dotted path; a function is given the old value."""

    def change(record):
        *parents, key = path.split(".")
        node = record
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node[parent]
        key = int(key) if isinstance(node, list) else key
        node[key] = value(node[key]) if callable(value) else value  # or a new entry

    return change


def drop(*keys):
    def change(record):
        for key in keys:
            del record[key]

    return change


def both(*changes):
    def change(record):
        for one in changes:
            one(record)

    return change


SPOILT = {
    "a key is missing": (drop("history"), "lacks history"),
    "nothing stands there": (spoil("timing", None), "lacks timing"),
    "several are": (drop("test", "git"), "lacks git, test"),
    "not a number": (
        spoil("history.3.train_loss", float("nan")),
        r"history\[3\].train_loss is nan",
    ),
    "infinite": (spoil("test.last.loss", float("inf")), "test.last.loss is inf"),
    "unknown setting": (spoil("config.recipe.warmup", 3), "warmup"),
    "impossible setting": (spoil("config.recipe.lr", -1.0), "recipe.lr must be above 0"),
    "another recipe": (spoil("config.recipe.lr", 0.02), "identity is eb7f4acf"),
    "another seed": (spoil("seed", 3), "seed is 3, in its configuration 0"),
    "another stream": (spoil("streams.order", 1), "stream 'order' is not that of seed 0"),
    "hidden budget": (spoil("reduced_budget", ["1 of 8 epochs"]), "reduced_budget is"),
    "another device": (spoil("environment.device", "cuda"), "environment.device is cuda"),
    "fewer parameters": (
        spoil("counts.head_parameters", 16_559),
        "counts.head_parameters is 16559",
    ),
    "more counts": (spoil("counts.layers", 3), "counts.layers is 3, its model has None"),
    "no hash": (spoil("data.split_hash", "22863972"), "data.split_hash is no SHA-256"),
    "hash in capitals": (spoil("data.test_hash", str.upper), "data.test_hash is no SHA-256"),
    "fewer images": (spoil("data.sizes.train", 59_999), "59999 [+] 0 of 60000 images"),
    "fewer test images": (spoil("data.sizes.test", 9_999), "data.sizes.test is 9999"),
    "an epoch short": (spoil("history", lambda h: h[:-1]), "epochs 1 to 8"),
    "epochs swapped": (spoil("history", lambda h: h[::-1]), "epochs 1 to 8"),
    "history rounded": (spoil("history.2.test_accuracy", 0.97), "test_accuracy of epoch 3 is not"),
    "another selecting part": (spoil("selection.on", "val"), "selection.on is val"),
    "another epoch selected": (
        spoil("selection.epoch", 2),
        "selection.epoch is 2, its rule picks 8",
    ),
    "selection embellished": (spoil("selection.accuracy", 0.999), "selection.accuracy is not that"),
    "accuracy embellished": (spoil("test.last.accuracy", 0.99), "test.last.accuracy is 0.99"),
    "correct embellished": (
        both(spoil("test.last.correct", 9900), spoil("test.last.accuracy", 0.99)),
        "test.last.correct is not that of epoch 8",
    ),
    "fewer counted": (spoil("test.selected.count", 9_900), "bits, expected 9900"),
    "more right than there are": (spoil("test.last.correct", 10_001), "correct is 10001, of 10000"),
    "half an image": (spoil("test.last.correct", 9808.5), "correct is 9808.5"),
    "best on test embellished": (spoil("test.best_on_test.accuracy", 0.999), "best_on_test is not"),
    "other images right": (
        spoil("test.last.correct_bits", pack_correct([True] * 9_000 + [False] * 1_000)),
        "correct_bits does not have 9808 images right",
    ),
    "bits damaged": (spoil("test.last.correct_bits", "AAAA"), "correct_bits cannot be read"),
    "another shape": (spoil("test", []), "not built as a record"),
    "history of numbers": (spoil("history", [1, 2]), "not built as a record"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_does_not_hold_together_is_found(name):
    change, message = SPOILT[name]
    record = committed()
    change(record)
    found = check_record(record, recount)
    assert found, "nothing was noticed"
    assert any(re.search(message, line) for line in found), found


def test_a_record_says_all_that_is_wrong_with_it():
    record = committed()
    record["identity"], record["test"]["last"]["accuracy"] = "00000000", 0.5
    assert len(check_record(record, recount)) == 2


def test_stored_configurations_come_back_also_with_stages():
    record = committed()
    record["config"]["recipe"]["stages"] = {"5": 0.001}  # as JSON has it
    config = stored_config(json.loads(json.dumps(record["config"])))
    assert config.recipe.stages == {5: 0.001}
    assert record["config"]["recipe"]["stages"] == {"5": 0.001}  # left as it was


def test_the_last_stage_alone_selects_where_the_recipe_says_so():
    """The first epoch of the new stage is worse than what came before (Q21)."""
    record = committed()
    recipe = record["config"]["recipe"]
    recipe["stages"], recipe["best_of_last_stage"] = {"7": 0.001}, True
    for entry, correct in zip(record["history"][-3:], (9900, 9700, 9808), strict=True):
        entry["test_correct"], entry["test_accuracy"] = correct, correct / 10_000
    record["test"]["best_on_test"]["accuracy"] = 0.99
    record["identity"] = stored_config(record["config"]).identity()
    assert check_record(record, recount) == []
    recipe["best_of_last_stage"] = False
    record["identity"] = stored_config(record["config"]).identity()
    assert "its rule picks 6" in check_record(record, recount)[0]


def test_records_of_the_regression():
    whole = regression_record()
    assert check_regression(whole) == []
    spoilt = {
        "it lacks": lambda r: r.pop("settings"),
        "the seeds 0 to 3": lambda r: r["runs"].pop(),
        "twice with seed": lambda r: r["runs"].append(r["runs"][-1]),
        "does not reach epoch 300": lambda r: r["settings"].update(epochs=300),
        "is nan": lambda r: r["runs"][3].update(train_mse=float("nan")),
        "rises with the epochs": lambda r: r["runs"][4].update(published_metric=1.0),
        "lacks a function": lambda r: r.update(runs=[x for x in r["runs"] if x["seed"] < 9][:-8]),
    }
    for message, change in spoilt.items():
        record = copy.deepcopy(whole)
        change(record)
        found = check_regression(record)
        wanted = "not built as a record" if message == "it lacks" else message
        assert any(wanted in line for line in found), (message, found)
