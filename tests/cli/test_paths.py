"""Paths and text as users type them, with one level of quotes in the shell."""

import shutil

import pytest

from spinal_repro.cli.launch import jobs_of
from spinal_repro.config.compose import compose
from spinal_repro.records.store import describe, run_folders

NAMES = (
    "photos (1)", "été", "a=b", "2024_01", "1e3", ".5", "True", "007", "it's", "{a}", "#1", "a&b",
    "x\\y",
)  # fmt: skip
SETTINGS = ("data.root", "runs", "+model.pretrained", "dataset.title", "+dataset.options.train")
SMALL = (
    "dataset=folder", "model=flatten", "head=linear", "recipe=sgd", "dataset.image_size=8",
    "recipe.epochs=1", "recipe.mean=[0.5]", "recipe.std=[0.5]", "runtime.device=cpu",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_taken_as_it_is_typed(name):
    values = compose([f"{key}={name}" for key in SETTINGS]).to_dict()
    found = [values["data"]["root"], values["runs"], values["model"]["pretrained"]]
    found += [values["dataset"]["title"], values["dataset"]["options"]["train"]]
    assert found == [name] * len(SETTINGS)
    jobs = jobs_of([f"runs={name},b", "seed=0"])  # a comma separates, as for Hydra
    assert [compose(job).runs for job in jobs] == [name, "b"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("'a b'", "a b"),
        ('"a,b"', "a,b"),
        ("a\\=b", "a=b"),
        ("${data.root}/x", "data/x"),
        ("${data.root}/x (1)", "data/x (1)"),
        ("${oc.env:NOT_SET,x}/y", "x/y"),
    ],
)
def test_quotes_escapes_and_references_keep_their_meaning(typed, meant):
    assert compose([f"runs={typed}"]).runs == meant
    (job,) = jobs_of([f"runs={typed}"])
    assert compose(job).runs == meant


def test_a_number_stays_a_number_for_a_reader_of_one_s_own():
    options = compose(["+dataset.options.size=3", "+dataset.options.sides=[1,2]"]).dataset.options
    assert options == {"size": 3, "sides": [1, 2]}


def test_a_run_and_a_sweep_in_folders_of_such_names(call, here, photos):
    shutil.copytree(photos / "photos", here / "été (1)")
    shutil.copytree(photos / "photos", here / "2024_01")
    cfg = here / "cfg = (1)"
    (cfg / "recipe").mkdir(parents=True)
    (cfg / "recipe" / "mine.yaml").write_text("defaults: [sgd, _self_]\nbatch_size: 4\n")
    words = ["--config-dir", cfg.name, *SMALL[:3], "recipe=mine", *SMALL[4:]]
    ended = call("spinal-train", *words, "data.root=été (1)", "runs=a=b")
    assert ended.code == 0, ended.err
    assert len(list(run_folders(here / "a=b"))) == 1
    ended = call("spinal-train", "-m", *words, "data.root=été (1),2024_01", "runs=~x y")
    assert ended.code == 0, ended.err
    assert [describe(folder)["state"] for folder in run_folders(here / "~x y")] == ["done"] * 2


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(call, here, monkeypatch, photos):
    monkeypatch.setenv("HOME", str(here))
    assert compose(["data.root=~/a", "+model.pretrained=~/b.pth"]).data.root == f"{here}/a"
    monkeypatch.setenv("SPINAL_RUNS", "~/runs")
    monkeypatch.setenv("SPINAL_DATA", "~/photos")
    ended = call("spinal-train", *SMALL)
    assert ended.code == 0, ended.err
    (run,) = run_folders(here / "runs")
    assert run.parts[-3] in call("spinal status --format csv").out
    ended = call(f"spinal eval {run} --root=~/nowhere")
    assert f"{here}/nowhere" in ended.err
    assert "in " + str(here) in call("spinal data list --root=~").out
    assert not (here / "~").exists()


def test_overrides_of_the_other_commands(call, here):
    ended = call("spinal", "params", "model=flatten", "head=linear", "runs=été (1)")
    assert ended.code == 0, ended.err
    ended = call("spinal", "data", "show", "digits", "data.root=a=b", "--out=~.png")
    assert ended.code == 0 and (here / "~.png").is_file()


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
@pytest.mark.parametrize("words", ["recipe=mine", "recipe=other recipe.epoch=1"])
def test_yaml_that_is_not_utf8_is_named(call, here, words, encoding):
    """Also the file that only suggestions read."""
    folder = here / "cfg" / "recipe"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# début\ndefaults: [sgd, _self_]\n", encoding=encoding)
    (folder / "other.yaml").write_text("defaults: [sgd, _self_]\nepochs: 1\n")
    for command in ("spinal-train", "spinal-train -m", "spinal-train --explain"):
        ended = call(f"{command} --config-dir {here}/cfg dataset=digits {words}")
        assert ended.code == 2 and ended.out == ""
        assert f"{folder}/mine.yaml is not UTF-8" in ended.err.splitlines()[-1]
