"""Cells on the command lines: names, patterns, refusals, what is listed and planned."""

import csv
import io
import shutil
from pathlib import Path

import pytest
from helpers.composing import composed

from spinal_repro.cli.overrides import check_cell, expand
from spinal_repro.cli.spinal import main as spinal
from spinal_repro.cli.train import _main, check_overrides
from spinal_repro.errors import UserError
from spinal_repro.paper.cells import load_cells
from spinal_repro.paper.plan import TimeEstimate, estimate
from spinal_repro.records.record import read_record
from spinal_repro.records.store import run_folders

RECORDS = Path(__file__).parents[2] / "results" / "records"


def test_a_pattern_becomes_the_names_it_stands_for(capsys):
    names = expand(["-m", "paper=mnist/cnn_*,mnist/vgg5_fc", "seed=0,1"], sweeping=True)
    cells = "mnist/cnn_fc,mnist/cnn_spinal8,mnist/cnn_spinal10,mnist/vgg5_fc"
    assert names == ["-m", f"paper={cells}", "seed=0,1"]
    assert capsys.readouterr().err == ""
    plain = ["paper=mnist/vgg5_fc", "dataset=mnist"]
    assert expand(plain, sweeping=False) == plain


def test_cells_that_cannot_be_run_are_left_out_of_a_pattern_and_named(capsys):
    (argument,) = expand(["paper=notebooks/stl10_vit_*"], sweeping=True)
    assert argument == "paper=notebooks/stl10_vit_fc,notebooks/stl10_vit_spinal40"
    assert "notebooks/stl10_vit_spinal_background" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "sweeping", "message"),
    [
        ("paper=mnist/*", False, "spinal-train -m 'paper=mnist/"),
        ("paper=mnist/lenet*", True, "no cell or table 'mnist/lenet"),
        ("paper=regression/*", True, "16 cells .* spinal regression"),
    ],
)
def test_patterns_that_name_nothing_to_run_are_refused(argument, sweeping, message):
    with pytest.raises(UserError, match=message):
        expand([argument], sweeping)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist/vgg_spinal", "did you mean 'mnist/vgg5_spinal'"),
        ("mnist", "-m 'paper=mnist/"),
        ("regression/sum_spinal_100", "spinal regression --epochs 100"),
        ("others/mura_vgg16_fc", "MURA"),
        ("summary/mnist", "mnist/vgg5_spinal"),
    ],
)
def test_names_that_cannot_be_run_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        check_overrides([f"paper={name}"])


def test_a_cell_of_one_s_own_is_left_to_hydra(tmp_path):
    (tmp_path / "paper" / "mine").mkdir(parents=True)
    (tmp_path / "paper" / "mine" / "one.yaml").write_text("paper: {name: mine/one}\n")
    check_cell("mine/one", [tmp_path])
    with pytest.raises(UserError, match="mine/two"):
        check_cell("mine/two", [tmp_path])


def test_what_a_cell_says_of_the_paper_is_no_setting():
    check_overrides(["paper=mnist/cnn_spinal8", "head.width=10", "protocol=heldout"])
    with pytest.raises(UserError, match=r"no configuration key 'paper\.published'"):
        check_overrides(["paper=mnist/cnn_spinal8", "paper.published=1"])


def listed(capsys, *arguments: str) -> list[dict[str, str]]:
    spinal(["paper", *arguments, "--format", "csv"])
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_a_sweep_over_a_pattern_trains_each_cell_under_its_name(
    real_data, tmp_path, monkeypatch, capsys
):
    runs = tmp_path / "runs"
    arguments = ["-m", "paper=mnist/cnn_*", "recipe.epochs=1", "data.limit=60"]
    arguments += [f"data.root={real_data}", f"runs={runs}", "runtime.progress=none"]
    monkeypatch.setattr("sys.argv", ["spinal-train", *arguments])
    monkeypatch.chdir(tmp_path)
    assert _main([*arguments, "runtime.device=cpu"]) == 0
    records = [read_record(folder / "record.json") for folder in run_folders(runs)]
    cells = {cell.name for cell in load_cells("mnist/cnn_*")}
    assert {r.config["cell"] for r in records} == cells and len(records) == len(cells)
    assert {r.config["protocol"]["name"] for r in records} == {"paper"}
    capsys.readouterr()
    states = [row["state"] for row in listed(capsys, "list", "mnist/cnn_*", "--runs", str(runs))]
    assert states == ["not run"] * len(cells)  # a reduced budget is not the cell


def test_the_list_counts_records_and_says_why_there_are_none(tmp_path, capsys):
    places = ["--runs", str(tmp_path), "--records", str(tmp_path / "records")]
    (tmp_path / "records").mkdir()
    for kept in ("cnn_fc-paper-*-s[01].json", "cnn_fc-heldout-*-s0.json"):
        for path in (RECORDS / "mnist").glob(kept):
            shutil.copy(path, tmp_path / "records")
    rows = {row["cell"]: row for row in listed(capsys, "list", *places)}
    assert list(rows) == [cell.name for cell in load_cells()]
    assert rows["mnist/cnn_fc"] == {
        "cell": "mnist/cnn_fc",
        "published": "98.17",
        "confidence": "quoted",
        "epochs": "8",
        "state": "run 2 (paper), 1 (heldout)",
    }
    assert rows["mnist/vgg5_fc"]["state"] == "not run"
    assert rows["mnist/vgg5_fc"]["published"] == ""
    assert "MURA" in rows["others/mura_vgg16_fc"]["state"]


def test_the_plan_leaves_out_what_is_done(tmp_path, capsys):
    shutil.copytree(RECORDS / "mnist", tmp_path / "records")
    places = ["--runs", str(tmp_path), "--records", str(tmp_path / "records")]
    rows = listed(capsys, "plan", "mnist/cnn_*", "--seeds", "7", *places)
    assert [row["left"] for row in rows] == ["2", "2", "2"]
    assert all(float(row["seconds"]) > 0 for row in rows)
    spinal(["paper", "plan", "mnist/cnn_fc", "--seeds", "3", *places])
    assert "0 runs left" in capsys.readouterr().err
    spinal(["paper", "plan", "regression", *places])
    assert "spinal regression --seeds 1" in capsys.readouterr().err


def test_a_plan_for_many_gpus_is_no_shorter_than_its_longest_run(tmp_path, monkeypatch, capsys):
    hours = {"mnist/cnn_fc": 1, "mnist/cnn_spinal8": 5, "mnist/cnn_spinal10": 1}
    monkeypatch.setattr(
        "spinal_repro.paper.plan.estimate",
        lambda config, _: TimeEstimate(8, 0.1, 3600.0 * hours.get(config.cell, 1)),
    )
    places = ["--runs", str(tmp_path), "--records", str(tmp_path)]
    for seeds, expected in (("1", "5.0"), ("4", "14.0")):  # of 7 and 28 hours on 2 GPUs
        spinal(["paper", "plan", "mnist/cnn_*", "--seeds", seeds, "--jobs", "2", *places])
        assert f"about {expected} hours" in capsys.readouterr().err
    spinal(["paper", "plan", "controls/cifar10_efficientnet_lite0_fc", *places])
    assert "1 runs left, about 1.0 hours" in capsys.readouterr().err  # without a published number


def test_an_estimate_adds_up():
    """Times of 1 s and 0.25 s an image in training and evaluation, for 54,000 and 6,000 of them."""
    config = composed("paper=mnist/cnn_fc", "protocol=heldout")
    timings = {}
    estimate(config, timings)
    (key,) = timings
    found = estimate(config, {key: (1.0, 0.25)})
    assert (found.epochs, found.step) == (8, 64.0)
    assert found.seconds == 8 * (54_000 + 0.25 * 6_000)
    assert estimate(composed("paper=mnist/cnn_fc"), {key: (1.0, 0.25)}).seconds == 8 * (
        60_000 + 0.25 * 10_000
    )
