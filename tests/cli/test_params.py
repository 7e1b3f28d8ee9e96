"""``spinal params``: sizes without training or data."""

import csv
import io
import json

import pytest
from helpers.made_records import FC, SPINAL, committed

from spinal_repro.cli.params import DATASETS, PHOTOGRAPHS, sizes
from spinal_repro.cli.spinal import main
from spinal_repro.config.compose import choices


def run(capsys, *arguments):
    main(["params", *arguments])
    return capsys.readouterr()


def rows(capsys, *arguments):
    text = run(capsys, *arguments, "--format", "csv").out
    return list(csv.DictReader(io.StringIO(text)))


def numbers(row, *keys):
    return tuple(int(row[key]) for key in keys)


def test_claims_of_the_paper_come_out(capsys):
    """Recipes 3.1: 48.6 % fewer multiplications in the head, 1.67 % in all; 4 % fewer units."""
    fc, spinal = rows(capsys, "dataset=mnist", "model=cnn", "head=spinal,fc")
    assert (fc["head"], spinal["head"]) == ("fc", "spinal")  # the baseline stands first
    keys = ("head_parameters", "head_multiplications", "total_multiplications", "head_activations")
    assert numbers(fc, *keys) == (16_560, 16_500, 480_500, 50)
    assert numbers(spinal, *keys) == (8_538, 8_480, 472_480, 48)
    changes = [float(spinal[f"{key}_change"]) for key in keys[:3]]
    assert changes == pytest.approx([-48.442, -48.606, -1.669], abs=5e-4)
    assert float(fc["head_multiplications_change"]) == 0


def test_the_emnist_file_has_more_activations(capsys):
    (row,) = rows(capsys, "dataset=emnist_digits", "model=cnn", "head=spinal", "head.width=10")
    assert numbers(row, "head_multiplications", "head_activations") == (10_700, 60)
    assert float(row["head_multiplications_change"]) == pytest.approx(-35.15, abs=5e-3)


def closed_form(head, d, c):
    """Parameters, multiplications and activations of the heads of VGG-5 (recipes 1.1, 2.3, 7.1)."""
    if head == "fc":
        return d * 512 + 512 + 2 * 512 + 512 * c + c, d * 512 + 512 * c, 512
    if head == "linear":
        return d * c + c, d * c, 0
    if head == "spinal":
        h, w, n = d // 2, 128, 4
        mult = h * w + (n - 1) * (h + w) * w + n * w * c
        return mult + n * w + c + 2 * n * w, mult, n * w
    w = 64
    mult = 4 * d * w + 6 * w * w + c * (d + 4 * w)
    return mult + 4 * w + c, mult, 4 * w


def test_every_head_has_its_closed_form_and_parts_add_up(capsys):
    found = rows(capsys, "model=vgg5", "dataset=emnist_balanced")
    assert {row["head"] for row in found} >= {"fc", "linear", "spinal", "progressive"}
    for row in found:
        keys = ("head_parameters", "head_multiplications", "head_activations")
        assert numbers(row, *keys) == closed_form(row["head"], 256, 47)
        body, head, total = numbers(row, "body_parameters", "head_parameters", "total_parameters")
        assert total == body + head == 3_508_416 + head
        convolutions = int(row["total_multiplications"]) - int(row["head_multiplications"])
        assert convolutions == 160_883_712


def test_a_head_that_fits_no_such_backbone_is_named_apart(capsys):
    out = run(capsys, "model=cnn,arch2", "dataset=mnist", "--format", "csv")
    heads = {(r["model"], r["head"]) for r in csv.DictReader(io.StringIO(out.out))}
    assert ("arch2", "arch2") in heads
    assert ("cnn", "arch2") not in heads
    assert "not counted, arch2 with cnn: " in out.err
    with pytest.raises(SystemExit) as stop:
        run(capsys, "model=cnn", "head=arch2")
    assert stop.value.code == 2
    assert "model=arch2" in capsys.readouterr().err


def test_head_options_are_not_the_baselines(capsys):
    (row,) = rows(capsys, "dataset=mnist", "model=cnn", "head=spinal", "head.width=10")
    assert int(row["head_multiplications"]) == 10_700
    assert float(row["head_multiplications_change"]) == pytest.approx(100 * (10_700 / 16_500 - 1))


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["model=cmn"], "cmn"),
        (["model=cnn", "head=spinl"], "spinl"),
        (["model=cnn,vgg5", "head.widht=3"], "widht"),
        (["model=cnn", "a=b=c"], "a"),
        (["--cells", "model=cnn"], "leave out"),
        (["model=cnn", "--out", "x.json"], "spinal params --cells --out FILE"),
        (["--cells", "--out", "missing/x.json"], "there is no folder"),
    ],
    ids=str,
)
def test_usage(arguments, hint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["params", *arguments])
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(("spinal: ", "usage: ")) and hint in err
    assert not list(tmp_path.iterdir())


def test_every_model_with_a_data_set_of_its_own_is_shipped():
    assert {model for models in DATASETS.values() for model in models} <= set(choices("model"))
    assert {*DATASETS, PHOTOGRAPHS} <= set(choices("dataset"))


def test_models_are_listed_with_their_own_data_set_when_none_is_named():
    found, refused = sizes(["model=flatten,resnet18_thin", "head=fc,spinal"])
    assert not refused and [(row["dataset"], row["model"], row["head"]) for row in found] == [
        ("mnist", "flatten", "fc"),
        ("mnist", "flatten", "spinal"),
        ("cifar10", "resnet18_thin", "fc"),
        ("cifar10", "resnet18_thin", "spinal"),
    ]
    (quadrant,), _ = sizes(["model=resnet18_thin", "model.pool=2", "head=spinal"])
    # recipes 2.6: four cells of 256, width 256
    assert quadrant["head_multiplications"] == 256 * 256 + 3 * 512 * 256 + 1024 * 10


def test_counting_needs_no_data_and_leaves_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPINAL_DATA", str(tmp_path / "missing"))
    assert len(rows(capsys, "model=flatten", "dataset=mnist", "head=linear")) == 1
    assert not list(tmp_path.iterdir())


def test_counts_of_cells_as_json(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("spinal_repro.paper.cells.load_cells", lambda: [FC, SPINAL])
    main(["params", "--cells", "--out", str(tmp_path / "counts.json")])
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts == {
        cell.name: committed(head)["counts"] for head, cell in {"fc": FC, "spinal": SPINAL}.items()
    }
    main(["params", "--cells"])
    assert json.loads(capsys.readouterr().out) == counts
