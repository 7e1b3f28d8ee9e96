"""Cells on the command lines: names, patterns, refusals, what is listed and planned."""

import csv
import io
import shutil
from pathlib import Path

import pytest
from helpers.composing import changed, composed

from spinal_repro.cli.overrides import check_cell, expand
from spinal_repro.errors import UserError
from spinal_repro.paper.cells import load_cells
from spinal_repro.paper.timebox import estimate
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
    (argument,) = expand(["paper=*/emnist_balanced_[sv]*"], sweeping=True)
    assert argument == "paper=mnist/emnist_balanced_vgg5_fc,mnist/emnist_balanced_vgg5_spinal"
    assert "others/emnist_balanced_small_spinal_30" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("paper=mnist/*", "spinal-train -m 'paper=mnist/"),
        ("-m paper=mnist/lenet*", "'mnist/lenet"),
        ("-m paper=regression/*", "spinal regression"),
        ("paper=mnist/vgg_spinal", "'mnist/vgg5_spinal'"),
        ("paper=mnist", "-m 'paper=mnist/"),
        ("paper=regression/sum_spinal_100_reused", "--epochs 100 --layers reused"),
        ("paper=others/mura_vgg16_fc", "MURA"),
        ("paper=summary/mnist", "mnist/vgg5_spinal"),
        ("paper=mnist/cnn_spinal8 paper.published=1", "'paper.published'"),
    ],
)
def test_cells_that_cannot_be_run_are_refused(call, here, words, named):
    ended = call(*["spinal-train", *words.split()])
    assert ended.code == 2 and named in ended.err and not list(here.iterdir())


def test_a_cell_of_one_s_own_is_left_to_hydra(tmp_path):
    (tmp_path / "paper" / "mine").mkdir(parents=True)
    (tmp_path / "paper" / "mine" / "one.yaml").write_text("paper: {name: mine/one}\n")
    check_cell("mine/one", [tmp_path])
    with pytest.raises(UserError, match="mine/two"):
        check_cell("mine/two", [tmp_path])


@pytest.fixture
def listed(call):
    def rows(*arguments: str) -> list[dict[str, str]]:
        ended = call("spinal", "paper", *arguments, "--format", "csv")
        return list(csv.DictReader(io.StringIO(ended.out)))

    return rows


def test_a_sweep_over_a_pattern_trains_each_cell_under_its_name(real_data, here, call, listed):
    small = ("recipe.epochs=1", "data.limit=60", "runtime.device=cpu", "runtime.progress=none")
    words = (
        "-m",
        "paper=mnist/cnn_spinal*",
        f"data.root={real_data}",
        "hydra/launcher=basic",
        *small,
    )
    assert call("spinal-train", *words).code == 0
    records = [read_record(folder / "record.json") for folder in run_folders(here / "runs")]
    cells = {cell.name for cell in load_cells("mnist/cnn_spinal*")}
    assert {r.config["cell"] for r in records} == cells and len(records) == len(cells)
    assert {r.config["protocol"]["name"] for r in records} == {"paper"}
    states = [row["state"] for row in listed("list", "mnist/cnn_spinal*")]
    assert states == ["not run"] * len(cells)  # a reduced budget is not the cell


def test_the_list_counts_records_and_says_why_there_are_none(here, listed):
    for kept in ("cnn_fc-paper-*-s[01].json", "cnn_fc-heldout-*-s0.json"):
        for path in (RECORDS / "mnist").glob(kept):
            shutil.copy(path, here)
    rows = {row["cell"]: row for row in listed("list", "--records", ".", "--runs", ".")}
    assert list(rows) == [cell.name for cell in load_cells()]
    assert rows["mnist/cnn_fc"] == {
        "cell": "mnist/cnn_fc",
        "published": "98.17",
        "confidence": "quoted",
        "epochs": "8",
        "state": "run 2 (paper), 1 (heldout)",
    }
    assert (rows["mnist/vgg5_fc"]["state"], rows["mnist/vgg5_fc"]["published"]) == ("not run", "")
    assert "MURA" in rows["others/mura_vgg16_fc"]["state"]


def test_the_plan_leaves_out_what_is_done(here, call, listed):
    places = ("--records", str(RECORDS / "mnist"), "--runs", str(here))
    rows = listed("plan", "mnist/cnn_*", "--seeds", "14", *places)  # 12 are recorded
    assert [row["left"] for row in rows] == ["2", "2", "2"]
    assert all(float(row["seconds"]) > 0 for row in rows)
    done = call("spinal", "paper", "plan", "mnist/cnn_fc", "--seeds", "3", *places)
    assert "0 runs left" in done.err
    other = call("spinal", "paper", "plan", "regression", *places)
    assert "spinal regression --seeds 1" in other.err


def test_a_plan_for_many_gpus_is_no_shorter_than_its_longest_run(here, monkeypatch, call):
    hours = {"mnist/cnn_fc": 1, "mnist/cnn_spinal8": 5, "mnist/cnn_spinal10": 1}
    monkeypatch.setattr(
        "spinal_repro.paper.timebox.estimate",
        lambda config, _: (0.1, 3600.0 * hours.get(config.cell, 1)),
    )
    for seeds, expected in ((1, 5.0), (4, 14.0)):  # of 7 and 28 hours on 2 GPUs
        words = f"mnist/cnn_* --seeds {seeds} --jobs 2 --runs {here} --records {here}"
        assert f"about {expected} hours" in call(f"spinal paper plan {words}").err


def test_an_estimate_adds_up():
    """Times of 1 s and 0.25 s an image in training and evaluation, for 54,000 and 6,000 of them."""
    config = composed("paper=mnist/cnn_fc", "protocol=heldout")
    timings = {}
    estimate(config, timings)
    (key,) = timings
    found = estimate(config, {key: (1.0, 0.25)})
    assert found == (64.0, 8 * (54_000 + 0.25 * 6_000))
    estimate(changed(config, {"model.freeze": "backbone"}), timings)
    assert len(timings) == 2  # training the head alone takes less time
