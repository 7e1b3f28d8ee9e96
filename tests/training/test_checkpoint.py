"""A run that was stopped and continued is bit for bit a run that was not."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.interrupting import KillAt, StopAt, interrupted, results
from helpers.variety import ALL, OPTIONS, VARIETY, Everything, small

from spinal_repro.data.augment import AUGMENTATIONS
from spinal_repro.errors import UserError
from spinal_repro.io import read_json
from spinal_repro.models.backbones import BACKBONES
from spinal_repro.models.heads import HEADS
from spinal_repro.training import checkpoint
from spinal_repro.training import run as run_module
from spinal_repro.training.checkpoint import Checkpoint, Interrupted
from spinal_repro.training.engine import Callback
from spinal_repro.training.optim import LR_RULES
from spinal_repro.training.run import run

KINDS = (
    "rule redraw_late", "augmentation affine", "the head first", "stages that forget",
    "adam, divide, on test", *OPTIONS,
)  # fmt: skip
EVAL_MODE = ("model.name=everything", "recipe.eval_mode_after=1")
BY_AUC = ("protocol.select_metric=auc", "recipe.lr_rule={name: divide}")


@pytest.mark.parametrize("overrides", [*(ALL[kind] for kind in KINDS), EVAL_MODE, BY_AUC], ids=str)
def test_a_run_that_was_stopped_twice_is_the_same(tmp_path, monkeypatch, overrides):
    monkeypatch.setitem(BACKBONES._items, "everything", Everything)
    whole = run(small(tmp_path / "whole", *overrides))
    config = small(tmp_path / "parts", *overrides)
    interrupted(config, StopAt(epoch=1))
    interrupted(config, StopAt(step=2))  # of epoch 2
    parts = run(config)
    assert results(parts.folder) == results(whole.folder)
    assert "resuming after epoch 1" in (parts.folder / "log.txt").read_text()


def test_a_checkpoint_of_an_earlier_version_has_a_number_of_images(tmp_path):
    config, whole = small(tmp_path / "old"), run(small(tmp_path / "whole")).folder
    path = interrupted(config, StopAt(epoch=1)) / "last.pt"
    saved = torch.load(path, weights_only=True)
    saved["state"]["best_correct"] = round(saved["state"].pop("best_score") * 96)
    torch.save(saved, path)
    assert results(run(config).folder) == results(whole)


def test_the_list_of_runs_has_every_rule_augmentation_and_head():
    for registry, prefix in ((LR_RULES, "rule"), (AUGMENTATIONS, "augmentation"), (HEADS, "head")):
        wanted = {f"{prefix} {name}" for name in registry.names()}
        assert wanted - {"head pretrained"} <= ALL.keys()  # that one needs a file of weights


@pytest.fixture
def saves(monkeypatch) -> list[int]:
    """The epochs after which a checkpoint is written; each look at the clock takes 10 s."""
    clock, epochs, save = itertools.count(0.0, 10.0), [], Checkpoint.save

    def noted(self, run):
        save(self, run)
        epochs.append(run.state.epoch)

    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=clock.__next__))
    monkeypatch.setattr(Checkpoint, "save", noted)
    return epochs


@pytest.mark.parametrize(
    ("save_every", "saved"), [("0", [1, 2, 3, 4, 5, 6]), ("20", [2, 4, 6]), ("null", [6])]
)
def test_seconds_between_checkpoints(tmp_path, saves, save_every, saved):
    run(small(tmp_path, "recipe.epochs=6", f"runtime.save_every={save_every}"))
    assert saves == saved


def test_a_stop_loses_the_epoch_in_progress_alone(tmp_path, saves):
    """Before the first checkpoint a run stops at once; else an unsaved epoch is finished first."""
    config = small(tmp_path, "runtime.save_every=15")
    with pytest.raises(Interrupted, match="before the first checkpoint"):
        run(config, [StopAt(step=2)])
    assert saves == [] and not (config.run_dir / "last.pt").exists()
    interrupted(config, StopAt(step=4))  # the first of epoch 2
    assert saves == [2]
    status = read_json(config.run_dir / "status.json")
    assert status["state"] == "interrupted" and "after epoch 2" in status["message"]
    interrupted(config, StopAt(step=2))  # of epoch 3: epoch 2 is saved, so it stops at once
    assert saves == [2]
    assert run(config).record.selection
    assert saves == [2, 3]


def test_killed_between_the_last_checkpoint_and_the_record(tmp_path, monkeypatch):
    """Only the record is written: no epoch is trained again."""
    config = small(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "evaluate_on_test", KillAt(step=1).on_step_end)
        interrupted(config, Callback())
    before = (config.run_dir / "last.pt").read_bytes()
    run(config)
    assert results(config.run_dir)["record"]["test"]
    assert (config.run_dir / "last.pt").read_bytes() == before


class Code:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "of another model", "code"])
def test_a_checkpoint_that_does_not_load_is_one_message(tmp_path, damage):
    config = small(tmp_path)
    path = interrupted(config, StopAt(epoch=1)) / "last.pt"
    data = bytearray(path.read_bytes())
    if damage == "flipped":  # in the pickle, where it shows
        data[data.index(b"history")] ^= 4
    path.write_bytes({"cut": data[:1000], "empty": b""}.get(damage, data))
    if damage == "of another model":
        other = interrupted(small(tmp_path, "model=flatten"), StopAt(epoch=1))
        path.write_bytes((other / "last.pt").read_bytes())
    if damage == "code":
        torch.save({"model": Code(tmp_path / "has run")}, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"last\.pt cannot be loaded \(.*; delete it"):
        run(config)
    assert path.read_bytes() == before and not (tmp_path / "has run").exists()
    path.unlink()
    assert len(run(config).record.history) == 3


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full."), OSError(5, "I/O")])
def test_an_error_of_the_machine_does_not_ask_to_delete_a_good_checkpoint(
    tmp_path, monkeypatch, error
):
    config = small(tmp_path)
    interrupted(config, StopAt(epoch=1))

    def fails(*given, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "load", fails)
        with pytest.raises(UserError) as refused:
            run(config)
    assert "delete" not in str(refused.value).lower()


@pytest.mark.parametrize(
    "overrides",
    [
        VARIETY["rule divide"], VARIETY["rule redraw_late"], VARIETY["stages that forget"],
        OPTIONS["nesterov, mixed and weighted"], OPTIONS["adamw, two rates"], EVAL_MODE,
        VARIETY["the head first"],
    ],
    ids=str,
)  # fmt: skip
def test_more_epochs_continue_a_shorter_run(tmp_path, monkeypatch, overrides):
    """The longest one; the result is that of all epochs in one run."""
    monkeypatch.setitem(BACKBONES._items, "everything", Everything)
    whole = run(small(tmp_path / "whole", *overrides, "recipe.epochs=5"))
    for epochs in (1, 3):
        shorter = run(small(tmp_path / "parts", *overrides, f"recipe.epochs={epochs}"))
    before = results(shorter.folder)
    steps = itertools.count()
    callback = Callback()
    callback.on_epoch_end = lambda *_: next(steps)
    parts = run(small(tmp_path / "parts", *overrides, "recipe.epochs=5"), [callback])
    assert results(parts.folder) == results(whole.folder)
    assert results(shorter.folder) == before
    done = len(shorter.record.history)
    assert next(steps) == len(whole.record.history) - done
    log = (parts.folder / "log.txt").read_text()
    assert f"continuing the {done} epochs of {shorter.folder}" in log and "resuming" not in log


def test_a_continued_run_resumes_from_its_own_checkpoint(tmp_path):
    whole = run(small(tmp_path / "whole", "recipe.epochs=6"))
    run(small(tmp_path / "parts"))
    config = small(tmp_path / "parts", "recipe.epochs=6")
    assert not (interrupted(config, KillAt(step=1)) / "last.pt").exists()
    interrupted(config, StopAt(epoch=5))
    assert results(run(config).folder) == results(whole.folder)
    assert "resuming after epoch 5" in (config.run_dir / "log.txt").read_text()


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "recipe.lr=0.02",
        "recipe.epochs=2",
        "rule",
        "patience",
        "no checkpoint",
        "unfinished",
    ],
)
def test_other_runs_are_not_continued(tmp_path, change):
    others = {"rule": OPTIONS["rule cosine"], "patience": ["head=fc", "recipe.patience=9"]}
    overrides = others.get(change, ["head=fc"])
    config = small(tmp_path, *overrides)
    if change == "unfinished":
        interrupted(config, StopAt(epoch=2))
    else:
        folder = run(config).folder
    if change == "no checkpoint":
        (folder / "last.pt").unlink()
    others = [change] if "=" in change else []
    longer = run(small(tmp_path, *overrides, "recipe.epochs=4", *others))
    assert not longer.was_done and "continuing" not in (longer.folder / "log.txt").read_text()
