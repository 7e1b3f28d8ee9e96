"""``spinal params``: sizes without training or data."""

import csv
import io
import json

import pytest
from helpers.made_records import FC, SPINAL, committed

from spinal_repro.cli.params import DATASETS, PHOTOGRAPHS, sizes
from spinal_repro.config.compose import choices


@pytest.fixture
def rows(call):
    """The rows that the command prints, after the message about those it leaves out."""

    def run(*words):
        ended = call("spinal", "params", *words, "--format", "csv")
        return ended.err, list(csv.DictReader(io.StringIO(ended.out)))

    return run


def numbers(row, *keys):
    return tuple(int(row[key]) for key in keys)


@pytest.mark.parametrize(
    "words",
    [
        ["dataset=mnist", "model=cnn", "head=spinal,fc"],
        ["paper=mnist/cnn_fc,mnist/cnn_spinal8"],
        ["paper=curve"],  # a table
    ],
)
def test_claims_of_the_paper_come_out(rows, words):
    """Recipes 3.1: 48.6 % fewer multiplications in the head, 1.67 % in all; 4 % fewer units."""
    _, (fc, spinal) = rows(*words)
    assert (fc["head"], spinal["head"]) == ("fc", "spinal")  # the baseline comes first
    keys = ("head_parameters", "head_multiplications", "total_multiplications", "head_activations")
    assert numbers(fc, *keys) == (16_560, 16_500, 480_500, 50)
    assert numbers(spinal, *keys) == (8_538, 8_480, 472_480, 48)
    changes = [float(spinal[f"{key}_change"]) for key in keys[:3]]
    assert changes == pytest.approx([-48.442, -48.606, -1.669], abs=5e-4)
    assert float(fc["head_multiplications_change"] or 0) == 0  # an FC cell is compared with none


def test_the_investigation_notebook_s_layers_are_counted(rows):
    """Recipes 5: fc1 50-30, fc2 to fc15 80-30, output 450-7; its input is a vector of 200."""
    sizes = ("image_size=10", "channels=2", "num_classes=7")
    head = ("width=30", "layers=15", "splits=4", "activation=leaky_relu")
    words = [*(f"dataset.{size}" for size in sizes), *(f"head.{option}" for option in head)]
    _, (row,) = rows("dataset=mnist", "model=flatten", "head=spinal", *words)
    layers = [(50, 30), *[(80, 30)] * 14, (450, 7)]
    multiplications = sum(inputs * outputs for inputs, outputs in layers)
    biases = sum(outputs for _, outputs in layers)
    keys = ("body_parameters", "head_multiplications", "head_parameters", "head_activations")
    assert numbers(row, *keys) == (0, multiplications, multiplications + biases, 15 * 30)


def test_every_head_is_counted_and_parts_add_up(rows):
    _, found = rows("model=vgg5", "dataset=emnist_balanced")
    assert {row["head"] for row in found} >= {"fc", "linear", "spinal", "progressive"}
    for row in found:
        body, head, total = numbers(row, "body_parameters", "head_parameters", "total_parameters")
        assert total == body + head == 3_508_416 + head
        convolutions = int(row["total_multiplications"]) - int(row["head_multiplications"])
        assert convolutions == 160_883_712


def test_a_head_that_fits_no_such_backbone_is_named_apart(rows, call):
    err, found = rows("model=cnn,arch2", "dataset=mnist", "head=fc,arch2")
    heads = {(row["model"], row["head"]) for row in found}
    assert ("arch2", "arch2") in heads and ("cnn", "arch2") not in heads
    assert "arch2 with cnn" in err
    ended = call("spinal params model=cnn head=arch2")
    assert ended.code == 2 and "model=arch2" in ended.err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("model=cmn head=fc", "cmn"),
        ("model=cnn head=spinl", "spinl"),
        ("model=cnn head=spinal head.widht=3", "widht"),
        ("model=cnn a=b=c", "a"),
        ("--cells model=cnn", "--cells"),
        ("model=cnn --out x.json", "--cells"),
        ("--cells --out missing/x.json", "missing"),
    ],
)
def test_usage(words, hint, call, here):
    code, out, err = call(f"spinal params {words}")
    assert code == 2 and out == "" and hint in err
    assert not list(here.iterdir())


def test_every_model_with_a_data_set_of_its_own_is_shipped():
    assert {model for models in DATASETS.values() for model in models} <= set(choices("model"))
    assert {*DATASETS, PHOTOGRAPHS} <= set(choices("dataset"))


def test_models_are_listed_with_their_own_data_set_and_need_no_data(here, monkeypatch):
    monkeypatch.setenv("SPINAL_DATA", "missing")
    found, refused = sizes(["model=flatten,resnet18_thin", "head=fc,spinal"])
    assert not refused and [(row["dataset"], row["model"], row["head"]) for row in found] == [
        ("mnist", "flatten", "fc"),
        ("mnist", "flatten", "spinal"),
        ("cifar10", "resnet18_thin", "fc"),
        ("cifar10", "resnet18_thin", "spinal"),
    ]
    assert not list(here.iterdir())


def test_counts_of_cells_as_json(call, here, monkeypatch):
    monkeypatch.setattr("spinal_repro.cli.params.load_cells", lambda: [FC, SPINAL])
    call("spinal params --cells --out counts.json")
    counts = json.loads((here / "counts.json").read_text())
    assert counts == {
        FC.name: committed("fc")["counts"],
        SPINAL.name: committed("spinal")["counts"],
    }
    assert json.loads(call("spinal params --cells").out) == counts
