"""Checkpoints with a right checksum and wrong content: refused in words, and never a record."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import interrupted, outcome, small

from spinal_repro.errors import UserError
from spinal_repro.files import write_sealed
from spinal_repro.training import checkpoint
from spinal_repro.training.replay import replay
from spinal_repro.training.run import run

Change = Callable[[dict[str, Any]], object]
NET = ["model=flatten", "head=linear", "recipe.optimizer=adam"]
NAN = float("nan")
SAID = "|".join(
    (
        r"the checkpoint cannot be read .*last\.pt",
        r"the checkpoint \S+ is that of another model",
        "the training images are others than those that the run",
    )
)


def at(*place: Any, be: Any) -> Change:
    """Puts another value at a place of a checkpoint."""

    def change(saved: dict[str, Any]) -> None:
        for key in place[:-1]:
            saved = saved[key]
        saved[place[-1]] = be(saved[place[-1]]) if callable(be) else be

    return change


def without(*place: Any) -> Change:
    """Takes away what is at a place."""

    def change(saved: dict[str, Any]) -> None:
        for key in place[:-1]:
            saved = saved[key]
        del saved[place[-1]]

    return change


def expanded(tensor: torch.Tensor) -> torch.Tensor:
    """All numbers in one place of memory, which cannot be written to."""
    return torch.zeros(1).expand(tensor.shape)


# of a run of 3 epochs of 3 steps that was stopped after step 2 of epoch 2
PARTWAY = {
    "epoch_text": at("state", "epoch", be="abc"),
    "epoch_bool": at("state", "epoch", be=True),
    "epoch_negative": at("state", "epoch", be=-1),
    "epoch_none": at("state", "epoch", be=None),
    "epoch_other": at("state", "epoch", be=2),
    "epoch_big": at("state", "epoch", be=7),
    "epoch_missing": without("state", "epoch"),
    "lr_text": at("state", "lr", be="x"),
    "lr_nan": at("state", "lr", be=NAN),
    "lr_negative": at("state", "lr", be=-0.1),
    "history_none": at("state", "history", be=None),
    "history_empty": at("state", "history", be=[]),
    "history_of_numbers": at("state", "history", be=[1]),
    "history_other_epoch": at("state", "history", 0, "epoch", be=2),
    "history_nan": at("state", "history", 0, "val_loss", be=NAN),
    "history_tensor": at("state", "history", 0, "train_loss", be=torch.ones(2, 2)),
    "history_more": at("state", "history", 0, "more", be=1.0),
    "history_less": without("state", "history", 0, "val_accuracy"),
    "timing_none": at("state", "timing", be=None),
    "timing_long": at("state", "timing", be=lambda rows: rows * 2),
    "timing_no_time": at("state", "timing", 0, "train_seconds", be=0.0),
    "timing_text_key": at("state", "timing", 0, 5, be=1.0),
    "best_none": at("state", "best_epoch", be=None),
    "best_nowhere": at("state", "best_epoch", be=0),
    "best_to_come": at("state", "best_epoch", be=2),
    "best_after_all": at("state", "best_epoch", be=9),
    "best_correct": at("state", "best_correct", be=0),
    "best_sha256": at("state", "best_sha256", be="0" * 64),
    "best_sha256_number": at("state", "best_sha256", be=5),
    "made_of_list": at("state", "made_of", be=["x"]),
    "made_of_number": at("state", "made_of", be={5: "x"}),
    "made_of_other": at("state", "made_of", "training images", be="x"),
    "more": at("state", "more", be=1),
    "state_list": at("state", be=[1]),
    "partway_number": at("state", "partway", be=5),
    "partway_empty": at("state", "partway", be={}),
    "step_big": at("state", "partway", "step", be=99),
    "step_negative": at("state", "partway", "step", be=-1),
    "step_smaller": at("state", "partway", "step", be=1),
    "losses_short": at("state", "partway", "losses", be=torch.zeros(2)),
    "losses_none": at("state", "partway", "losses", be=None),
    "losses_nan": at("state", "partway", "losses", be=lambda t: t * NAN),
    "losses_whole": at("state", "partway", "losses", be=lambda t: t.long()),
    "losses_expanded": at("state", "partway", "losses", be=expanded),
    "correct_float": at("state", "partway", "correct", be=torch.tensor([1.0, 2.0])),
    "correct_many": at("state", "partway", "correct", be=torch.tensor(65)),
    "correct_negative": at("state", "partway", "correct", be=torch.tensor(-1)),
    "random_short": at("state", "partway", "random", "cpu", be=torch.zeros(3, dtype=torch.uint8)),
    "random_zero": at("state", "partway", "random", "cpu", be=lambda state: state * 0),
    "random_none": at("state", "partway", "random", be=None),
    "random_elsewhere": at("state", "partway", "random", "cuda", be=torch.get_rng_state()),
    "seconds_nan": at("state", "partway", "seconds", be=NAN),
    "waited_text": at("state", "partway", "waited", be="x"),
    "model_list": at("model", be=[1]),
    "model_empty": at("model", be={}),
    "model_nan": at("model", be=lambda all: {n: t * NAN for n, t in all.items()}),
    "model_whole": at("model", be=lambda all: {n: t.long() for n, t in all.items()}),
    "optimizer_number": at("optimizer", be=5),
    "optimizer_none": at("optimizer", "state", be=None),
    "memory_of_none": at("optimizer", "state", 9, be={}),
    "memory_empty": at("optimizer", "state", 0, be={}),
    "memory_shape": at("optimizer", "state", 0, "exp_avg", be=torch.zeros(3)),
    "memory_nan": at("optimizer", "state", 0, "exp_avg", be=lambda t: t * NAN),
    "memory_negative": at("optimizer", "state", 0, "exp_avg_sq", be=lambda t: t - 1),
    "memory_expanded": at("optimizer", "state", 0, "exp_avg", be=expanded),
    "memory_step": at("optimizer", "state", 0, "step", be=torch.tensor(-1.0)),
}  # fmt: skip
# of a run that was stopped after its last epoch, before its record was written
ENDED = {
    "model_nan": PARTWAY["model_nan"],
    "epoch_smaller": at("state", "epoch", be=2),
    "partway_after_all": at(
        "state", "partway",
        be=lambda _: {
            "losses": torch.zeros(3), "correct": torch.tensor(0), "step": 0,
            "random": {"cpu": torch.get_rng_state()}, "seconds": 1.0, "waited": 0.0,
        },
    ),
    "best_other": at("state", "best_epoch", be=lambda best: best % 3 + 1),
    "history_not_right": at("state", "history", 1, "val_correct", be=97),
    "timing_order": at("state", "timing", be=lambda rows: rows[::-1]),
}  # fmt: skip


def crafted(path: Path, change: Change) -> None:
    """Change what a checkpoint says, and seal it again."""
    saved = checkpoint._read(path)
    change(saved)
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    write_sealed(path, [b"best 000001\n", buffer.getbuffer()])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """The runs of one that was stopped, to be copied."""
    place = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        interrupted(small(place, *NET), patch, 5)
    return place


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("ended")
    run(small(place, *NET))
    return place


@pytest.mark.parametrize("name", PARTWAY)
def test_of_a_run_that_was_stopped_in_an_epoch(tmp_path, stopped, name):
    """Alone it is refused, and the folder stays as it is."""
    config = small(shutil.copytree(stopped, tmp_path / "runs"), *NET)
    folder = config.run_dir
    (folder / "previous.pt").unlink()
    crafted(folder / "last.pt", PARTWAY[name])
    left = sorted(path.name for path in folder.iterdir())
    with pytest.raises(UserError, match=SAID):
        run(config)
    assert sorted(path.name for path in folder.iterdir()) == left


@pytest.mark.parametrize("name", ["epoch_text", "history_none", "losses_short", "step_negative"])
def test_a_replay_refuses_it_as_well(tmp_path, stopped, name):
    config = small(shutil.copytree(stopped, tmp_path / "runs"), *NET)
    (config.run_dir / "previous.pt").unlink()
    crafted(config.run_dir / "last.pt", PARTWAY[name])
    with pytest.raises(UserError, match=SAID):
        replay(config.run_dir)


@pytest.mark.parametrize("name", ENDED)
def test_of_a_run_that_has_trained(tmp_path, ended, name):
    """Nothing is computed of it any more: what is wrong would be in the record."""
    config = small(shutil.copytree(ended, tmp_path / "runs"), *NET)
    folder = config.run_dir
    (folder / "record.json").unlink()
    crafted(folder / "last.pt", ENDED[name])
    with pytest.raises(UserError, match=SAID):
        run(config)
    assert not (folder / "record.json").exists()


@pytest.mark.parametrize("name", ["epoch_big", "step_big", "best_none", "random_short"])
def test_the_checkpoint_before_is_taken(tmp_path, monkeypatch, capsys, name):
    whole = run(small(tmp_path / "whole", *NET))
    config = small(tmp_path / "parts", *NET)
    crafted(interrupted(config, monkeypatch, 5) / "last.pt", PARTWAY[name])
    parts = run(config)
    assert "the last checkpoint is damaged" in capsys.readouterr().err
    assert outcome(parts.folder, parts.record) == outcome(whole.folder, whole.record)


def test_what_a_file_says_of_the_optimizer_is_not_followed(tmp_path, monkeypatch):
    """Its settings are the recipe's."""
    whole = run(small(tmp_path / "whole", *NET))
    config = small(tmp_path / "parts", *NET)
    last = interrupted(config, monkeypatch, 5) / "last.pt"
    crafted(last, at("optimizer", "param_groups", 0, "betas", be=(0.1, 0.1)))
    parts = run(config)
    assert outcome(parts.folder, parts.record) == outcome(whole.folder, whole.record)


def test_what_an_older_version_did_not_write_is_no_damage(tmp_path, monkeypatch):
    whole = run(small(tmp_path / "whole", *NET))
    config = small(tmp_path / "parts", *NET)
    last = interrupted(config, monkeypatch, 5) / "last.pt"
    saved = checkpoint._read(last)
    for name in ("best_sha256", "made_of"):
        del saved["state"][name]
    for name in ("data_share", "processes"):
        del saved["state"]["timing"][0][name]
    torch.save(saved, last)
    parts = run(config)
    assert outcome(parts.folder, parts.record) == outcome(whole.folder, whole.record)


def test_a_column_of_timing_that_is_null_is_as_good_as_not_there(tmp_path, monkeypatch):
    config = small(tmp_path, *NET)
    folder = interrupted(config, monkeypatch, 5)
    saved = checkpoint._read(folder / "last.pt")
    at("state", "timing", 0, "data_share", be=None)(saved)
    sealed = io.BytesIO()
    torch.save(saved, sealed)
    write_sealed(folder / "last.pt", [b"best 000001\n", sealed.getbuffer()])
    rows = run(config).record["timing"]
    assert "data_share" not in rows[0] and "data_share" in rows[1]
