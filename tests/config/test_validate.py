"""Values that are refused, each with its key and the values that are allowed."""

import pytest
from helpers.composing import changed, composed

from spinal_repro.errors import UserError

REFUSED = {
    "must be above 0": {
        "recipe.epochs": -1, "recipe.batch_size": 0, "recipe.eval_batch_size": -5, "recipe.lr": 0.0,
        "recipe.std": [0.0], "dataset.num_classes": 0, "dataset.image_size": -28,
        "dataset.channels": 0, "data.limit": 0, "runtime.threads": 0, "runtime.jobs": 0,
        "runtime.time_limit": 0,
    },
    "must be 0 or more": {
        "recipe.momentum": -0.1, "recipe.weight_decay": -1e-4, "recipe.head_epochs": -1,
        "runtime.save_every": -1, "seed": -1,
    },
    "finite": {"recipe.lr": float("nan"), "recipe.augment": [{"name": "crop", "size": 2**63}]},
    "list of numbers": {"recipe.mean": [[1]]},
    r"in \[0, 1\)": {"recipe.label_smoothing": 1.0},
    "2 or later": {"recipe.stages": {1: 0.1}},
    "one value": {"recipe.std": []},
    "both": {"recipe.std": None},
    "64 bits": {"recipe.mean": [10**400], "data.limit": 10**22, "seed": 2**63},
    "by channel": {"recipe.mean": [0.1, 0.2]},
    "up to 4096": {"recipe.prepare": {"eval": {"resize": 4097}}},
    "not square": {"recipe.prepare": {"eval": {"resize": [30, 40]}}},
    "'eval'": {"recipe.prepare": {"val": {}}},
    "training alone": {"recipe.prepare": {"eval": {"fit": 30}}},
    "without resize": {"recipe.prepare": {"train": {"resize": 28, "fit": 30}}},
    "resized crop": {"recipe.prepare": {"train": {"fit": 30}}},
    "below the number of classes": {"dataset.num_outputs": 9},
    "source": {"dataset.source": None},
    "may have letters": {"dataset.name": "../x"},
    "protocol=heldout": {"data.test": False},
    "at most 4,096": {"runtime.threads": 4097},
    "a number or auto": {"runtime.jobs": "all"},
    "bf16": {"runtime.precision": "fp16"},
    "lines": {"runtime.progress": "line"},
    "cuda": {"runtime.device": "cudda"},
    "at most 4,294,967,295": {"protocol.split_seed": 2**32},
    "val": {"protocol.select_on": "vall"},
    "must be 0 with": {"protocol.val_fraction": 0.1},
    "leave out": {"protocol.watch_test": True},
    "does not read": {"data.table": "labels.csv", "data.file": "images.npz"},
    "'1.5'": {"seed": 1.5},
    "'True'": {"seed": True},
    "'None'": {"seed": None},
    "a group of settings": {"recipe": 3, "head": {"width": 8}},
}  # fmt: skip


@pytest.mark.parametrize(
    "message, key, value",
    [(message, *item) for message, values in REFUSED.items() for item in values.items()],
    ids=str,
)
def test_a_value_out_of_range_is_refused(message, key, value):
    with pytest.raises(UserError, match=message) as refused:
        changed(composed("dataset=mnist", "protocol=paper"), {key: value})
    assert key.rpartition(".")[2] in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_validation_part_is_a_fraction_of_train(fraction):
    with pytest.raises(UserError, match="val_fraction must be between 0 and 1"):
        changed(composed("dataset=mnist"), {"protocol.val_fraction": fraction})


def test_tf32_needs_cuda():
    with pytest.raises(UserError, match="tf32 needs an NVIDIA GPU"):
        changed(composed(), {"runtime.precision": "tf32", "runtime.device": "cpu"})
