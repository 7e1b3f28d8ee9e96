"""Searches: options from a YAML file, tried on the validation split, shared by processes."""

import dataclasses
import shlex
import subprocess
import sys

import pytest
from helpers.interrupting import Killed
from PIL import Image

pytest.importorskip("optuna")

from spinal_repro.cli import train
from spinal_repro.cli.spinal import main
from spinal_repro.config.compose import compose
from spinal_repro.data import sources
from spinal_repro.errors import EXIT_INTERRUPTED, UserError
from spinal_repro.inference import load_run, load_split
from spinal_repro.io import BusyError
from spinal_repro.records.record import read_record
from spinal_repro.records.store import read_records, run_folders
from spinal_repro.search import study as study_module
from spinal_repro.search.study import Study, load_space
from spinal_repro.training import run as run_module
from spinal_repro.training.checkpoint import Checkpoint
from spinal_repro.training.run import run

FIXED = [
    "head=spinal", "model=flatten", "recipe=cnn", "recipe.epochs=1", "data.limit=40",
    "runtime.device=cpu", "runtime.progress=none",
]  # fmt: skip
SPACE = """
options:
  head.width: {low: 2, high: 16, log: true}
  head.layers: {low: 4, high: 6}
  head.splits: {choices: [1, 2, 4]}
  head.dropout: {low: 0.0, high: 0.5}
  recipe.lr: {low: 1e-4, high: 0.1, log: true}
"""


@pytest.fixture
def space(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    return load_space(str(tmp_path / "space.yaml"))


def study_of(tmp_path, space, fixed=FIXED, **inputs):
    return Study(tmp_path / "study/journal.log", "s", space, fixed, inputs)


def raising(error):
    def function(*arguments):
        raise error

    return function


def records(tmp_path):
    return [read_record(folder / "record.json") for folder in run_folders(tmp_path / "study")]


class Poison:
    """A test part that nobody may read."""

    def _fail(self, *arguments):
        raise AssertionError("the test part was read")

    __getattr__ = __len__ = __iter__ = __getitem__ = __bool__ = __eq__ = _fail


@pytest.fixture
def poisoned(monkeypatch):
    real = sources.SOURCES["digits"]

    def without(config, root, download):
        return dataclasses.replace(real(config, root, download), test=Poison())

    monkeypatch.setitem(sources.SOURCES._items, "digits", without)


def test_trials_never_read_the_test_part(tmp_path, space, poisoned):
    with pytest.raises(AssertionError, match="was read"):
        run(compose([*FIXED, f"runs={tmp_path / 'other'}"]))
    lines: list[str] = []
    study = study_of(tmp_path, space)
    study.run(3, lines.append)
    assert study.counts == {"complete": 3} and len(lines) == 3
    tried = []  # accuracy and options of each trial
    for record in records(tmp_path):
        head, recipe = record.config["head"], record.config["recipe"]
        options = {f"head.{k}": head[k] for k in ("width", "layers", "splits", "dropout")}
        options["recipe.lr"] = recipe["lr"]
        tried.append((record.selection.accuracy, options))
        assert record.test is None and record.config["protocol"]["name"] == "heldout"
        assert not any(key.startswith("test") for e in record.history for key in e)
        for key, option in space.options.items():
            assert option._contains(option.to_internal_repr(options[key]))
    best = study.best
    assert best.value == max(accuracy for accuracy, _ in tried)
    assert (best.value, best.user_attrs["values"]) in tried and best.user_attrs["images"] == 40
    assert not list(tmp_path.glob("study/*/*/*/predictions.npz"))
    assert read_records([tmp_path / "study"]) == []  # no result


def test_a_run_without_test_trains_as_one_with_it(tmp_path):
    overrides = [*FIXED, f"runs={tmp_path}", "recipe.epochs=2"]
    plain, blind = run(compose(overrides)), run(compose([*overrides, "data.test=false"]))
    assert plain.folder != blind.folder
    assert plain.record.history == blind.record.history
    assert plain.record.selection.accuracy == blind.record.selection.accuracy
    with pytest.raises(UserError, match=r"data.test=false"):
        load_split(load_run(blind.folder, "cpu"), "test")
    with pytest.raises(UserError, match="protocol=heldout"):
        compose([*overrides, "data.test=false", "protocol=paper"])


def test_a_lost_trial_continues(tmp_path, space, monkeypatch):
    fixed = [*FIXED, "recipe.epochs=2", "runtime.save_every=0"]
    save = Checkpoint.save

    def save_then_die(*arguments):
        save(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_then_die)
        with pytest.raises(Killed):
            study_of(tmp_path, space, fixed).run(2, print)
    study = study_of(tmp_path, space, fixed)
    assert study.counts == {"running": 1}
    monkeypatch.setattr(study_module, "_is_alive", lambda pid: False)
    study.run(2, print)
    assert study.counts == {"complete": 2}
    logs = [(folder / "log.txt").read_text() for folder in run_folders(tmp_path / "study")]
    assert len(logs) == 2  # the same folder, from its checkpoint
    assert sum("resuming after epoch 1" in log for log in logs) == 1


def test_ctrl_c_ends_the_search_with_75_and_a_trial_to_continue(tmp_path, space, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study_module, "run", raising(KeyboardInterrupt))
    with pytest.raises(SystemExit) as ended:
        main(["search", *FIXED, "--space=space.yaml", "--journal=study/journal.log", "--study=s"])
    assert ended.value.code == EXIT_INTERRUPTED
    assert study_of(tmp_path, space).counts == {"running": 1}


def test_trials_of_other_machines_are_repeated_only_on_demand(tmp_path, space, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "fit", raising(Killed))
        patch.setattr(study_module.socket, "gethostname", lambda: "elsewhere")
        with pytest.raises(Killed):
            study_of(tmp_path, space).run(1, print)
    study = study_of(tmp_path, space)
    study.run(1, print)
    assert study.counts == {"running": 1}
    study.run(1, print, take_over=True)
    assert study.counts == {"complete": 1}


def test_a_failed_trial_does_not_end_the_search(tmp_path, space, monkeypatch):
    real, calls = run_module.fit, []

    def sometimes(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise UserError("the loss is nan")
        real(*arguments)

    monkeypatch.setattr(run_module, "fit", sometimes)
    lines: list[str] = []
    study = study_of(tmp_path, space)
    study.run(3, lines.append)
    assert study.counts == {"complete": 2, "fail": 1}
    assert [line for line in lines if "failed" in line and "the loss is nan" in line] == [lines[1]]


def test_options_that_another_process_tries_are_waited_for(tmp_path, space, monkeypatch):
    real, calls = study_module.run, []

    def busy_at_first(config):
        calls.append(config)
        if len(calls) < 3:
            raise BusyError("process 1 is training the run")
        return real(config)

    monkeypatch.setattr(study_module, "run", busy_at_first)
    monkeypatch.setattr(study_module, "PAUSE", 0)
    study = study_of(tmp_path, space)
    study.run(1, print)
    assert study.counts == {"complete": 1} and len(calls) == 3


def test_a_search_in_which_all_trials_fail_ends(tmp_path, space):
    with pytest.raises(UserError, match="3 trials failed and none is complete"):
        study_of(tmp_path, space, [*FIXED, f"data.root={tmp_path}", "dataset=mnist"]).run(9, print)


@pytest.mark.slow
def test_two_processes_share_a_journal(tmp_path, space):
    """Which both create at the same time."""
    script = f"""
from pathlib import Path
from spinal_repro.search.study import Study, load_space
place = Path({str(tmp_path)!r})
space = load_space(str(place / "space.yaml"))
study = Study(place / "study/journal.log", "s", space, {FIXED!r}, {{}})
study.run(12, print)
"""
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    lines = [process.communicate(timeout=240)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    study = study_of(tmp_path, space)
    complete = study.counts["complete"]
    assert complete in (12, 13) and complete == sum(map(len, lines))
    assert study.best.value == max(r.selection.accuracy for r in records(tmp_path))


def test_the_command_prints_the_command(tmp_path, space, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ours = [o for o in FIXED if not o.startswith(("head=", "runtime.progress"))]
    place = ["runs=" + str(tmp_path / "r s"), "head=spinal"]
    main(["search", *ours, *place, "--trials", "1", "--space", "space.yaml"])
    out = capsys.readouterr().out
    assert "1 complete; best: trial 0" in out
    command = shlex.split(out.splitlines()[-1])
    assert command[:2] == ["spinal-train", "-m"] and command[-1] == "seed=0,1,2"
    config = compose([*command[2:-1], "seed=0"])
    assert config.data.test and config.protocol.name == "heldout"
    (folder,) = run_folders(next((tmp_path / "r s/.search").iterdir()))
    tried = read_record(folder / "record.json").config
    assert tried["head"] == config.head.to_dict() and tried["recipe"]["lr"] == config.recipe.lr
    train.check_overrides(command[2:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["head.width=8"], "head.width is searched"),
        (["protocol=paper"], "never reads the test set"),
        (["data.test=true"], "never reads the test set"),
        (["recipe.epoch=1"], "recipe.epoch"),
        (["head=fc"], "head.width"),
        (["recipe.optimizer=nosuch"], "nosuch"),
        (["--space", "defualt"], "did you mean 'default'"),
        (["--trials", "-1"], "0 or more"),
        (["--trials", "0"], "no trial of digits-cnn-spinal-default has finished"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["search", *arguments])
    assert message in capsys.readouterr().err


def test_a_study_is_one_search(tmp_path, space):
    study_of(tmp_path, space)
    study_of(tmp_path, space, [*FIXED, "runtime.threads=1", f"runs={tmp_path}"])  # of this machine
    with pytest.raises(UserError, match="another search"):
        study_of(tmp_path, space, [*FIXED, "recipe.epochs=2"])
    (tmp_path / "space.yaml").write_text(SPACE.replace("high: 16", "high: 20"))
    with pytest.raises(UserError, match="another search"):
        study_of(tmp_path, load_space(str(tmp_path / "space.yaml")))


def test_images_of_ones_own_are_part_of_a_search(call, here):
    fixed = " ".join([*FIXED, "recipe.mean=[0.5]", "recipe.std=[0.5]", "dataset.image_size=28"])
    (here / "space.yaml").write_text(SPACE)
    for folder, ants in (("a", 10), ("b", 11)):
        for name, count in (("ants", ants), ("bees", 10)):
            (here / folder / "photos" / name).mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", (8, 8), (20 * number, 0, count))
                image.save(here / folder / "photos" / name / f"{number}.png")
    command = f"spinal search dataset=folder {fixed} data.root=%s --space space.yaml --trials 1"
    ended = call(command % "a/photos")
    assert ended.code == 0 and "study folder_photos-" in ended.out, ended.err
    ended = call(command % "b/photos")
    assert ended.code == 2 and "another search" in ended.err


@pytest.mark.parametrize(
    "text",
    [
        "options: {head.width: 8}",
        "options: {head.width: {low: 8, high: 9, choices: [1]}}",
        "options: {head.width: {low: 9, high: 8}}",
        "options: {recipe.lr: {low: 0.1, hihg: 1.0}}",
        "option: {}",
        "a: [",
    ],
)
def test_spaces_that_make_no_sense(tmp_path, text):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(UserError, match=r"space\.yaml is not a search space"):
        load_space(str(tmp_path / "space.yaml"))
