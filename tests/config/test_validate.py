"""Values that are refused, each with its key and what is allowed."""

import pytest
from helpers.composing import changed, composed

from spinal_repro.errors import UserError

REFUSED = [
    ("recipe.epochs", -1, "must be above 0, got -1"),
    ("recipe.batch_size", 0, "must be above 0"),
    ("recipe.eval_batch_size", -5, "must be above 0"),
    ("recipe.lr", 0.0, "must be above 0"),
    ("recipe.lr", float("nan"), "must be a finite number"),
    ("recipe.momentum", -0.1, "must be 0 or more"),
    ("recipe.weight_decay", -1e-4, "must be 0 or more"),
    ("recipe.head_epochs", -1, "must be 0 or more"),
    ("recipe.label_smoothing", 1.0, r"must be in \[0, 1\)"),
    ("recipe.stages", {1: 0.1}, "2 or later"),
    ("recipe.std", [0.0], "must be above 0"),
    ("recipe.std", [], "needs one value"),
    ("recipe.std", None, "must both be given"),
    ("recipe.mean", [10**400], "must fit in 64 bits"),
    ("recipe.mean", [0.1, 0.2], "one for each of the 1 channels"),
    ("recipe.prepare", {"eval": {"resize": 4097}}, "from 1 to 4096"),
    ("recipe.prepare", {"eval": {"crop": 4097}}, "from 1 to 4096"),
    ("recipe.prepare", {"eval": {"resize": [30, 40]}}, "is not square; give"),
    ("recipe.prepare", {"val": {}}, "'val'; did you mean 'eval'"),
    ("dataset.num_classes", 0, "must be above 0"),
    ("dataset.image_size", -28, "must be above 0"),
    ("dataset.channels", 0, "must be above 0"),
    ("dataset.num_outputs", 9, r"\(9\) is below the number of classes \(10\)"),
    ("dataset.source", None, "source"),
    ("dataset.name", "../x", "must be made of letters"),
    ("data.limit", 0, "must be above 0"),
    ("data.test", False, "needs protocol=heldout"),
    ("runtime.threads", 0, "must be above 0"),
    ("runtime.threads", 4097, "must be at most 4,096"),
    ("runtime.jobs", "all", "must be a number or auto"),
    ("runtime.jobs", 0, "must be above 0"),
    ("runtime.time_limit", 0, "must be above 0"),
    ("runtime.precision", "fp16", "must be .* or "),
    ("runtime.save_every", -1, "must be 0 or more"),
    ("runtime.progress", "line", "must be .* or "),
    ("runtime.device", "cudda", "must be .* or "),
    ("protocol.split_seed", 2**32, "must be at most 4,294,967,295"),
    ("protocol.select_on", "vall", "must be .* or "),
    ("protocol.val_fraction", 0.1, "must be 0 with"),
    ("protocol.watch_test", True, "leave out protocol.watch_test"),
    ("seed", -1, "must be 0 or more, got -1"),
    ("seed", 2**63, "must fit in 64 bits"),
    ("seed", 1.5, "'1.5'"),
    ("seed", True, "'True'"),
    ("seed", None, "'None'"),
    ("recipe", 3, "must be a group of settings"),
    ("head", {"width": 8}, "must be a group of settings with a name"),
]


@pytest.mark.parametrize("key, value, message", REFUSED, ids=str)
def test_a_value_out_of_range_is_refused(key, value, message):
    config = composed("dataset=mnist", "protocol=paper")
    with pytest.raises(UserError, match=message) as refused:
        changed(config, {key: value})
    assert key.rpartition(".")[2] in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_validation_part_is_a_fraction_of_train(fraction):
    with pytest.raises(UserError, match="val_fraction must be between 0 and 1"):
        changed(composed("dataset=mnist"), {"protocol.val_fraction": fraction})


def test_tf32_needs_cuda():
    settings = {"runtime.precision": "tf32", "runtime.device": "cpu"}
    with pytest.raises(UserError, match="tf32 needs an NVIDIA GPU"):
        changed(composed(), settings)


def test_one_mean_for_each_channel_is_accepted():
    three = {"dataset.channels": 3, "recipe.mean": [0.1, 0.2, 0.3]}
    assert changed(composed("dataset=mnist"), three).recipe.mean == [0.1, 0.2, 0.3]
