"""Stopped anywhere and issued again: the same to the bit. What is damaged is noticed."""

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stopping import SMALL, interrupted, outcome, signal_at, small

from spinal_repro.cli import train as cli
from spinal_repro.errors import EXIT_INTERRUPTED, UserError
from spinal_repro.files import read_json
from spinal_repro.training import checkpoint, ending, loop
from spinal_repro.training import run as run_module
from spinal_repro.training.loop import State
from spinal_repro.training.progress import Progress
from spinal_repro.training.run import run
from spinal_repro.training.stop import Interrupted

# each: dropout, batch norm, augmentation, stages, a rule, an optimizer, a protocol, a precision
VARIETY = {
    "dropout, augmentation, redraw": [
        "head=fc", "recipe.lr_rule={name: redraw}", "recipe.augment=[{name: rotation, degrees: 9}]",
    ],
    "dropout, adam, divide, on test": [
        "head=spinal", "head.dropout=0.3", "protocol=paper", "recipe.lr_rule={name: divide}",
        "recipe.optimizer=adam",
    ],
    "batch norm, stages, bf16": [
        "head=fc", "head.norm=true", "recipe.stages={2: 0.01, 3: 0.001}", "runtime.precision=bf16",
        "runtime.self_check=false",
    ],
    "sgd, stages that forget, step": [
        "head=spinal", "recipe.optimizer=sgd", "recipe.momentum=0.9", "recipe.stages={2: 0.5}",
        "recipe.best_of_last_stage=true", "recipe.lr_rule={name: step, step: 1}",
    ],
    "late redraws": ["head=progressive", "recipe.lr_rule={name: redraw_late, start: 1}"],
    "watched, deterministic, divide_at": [
        "head=linear", "protocol.watch_test=true", "runtime.deterministic=true",
        "recipe.lr_rule={name: divide_at, epochs: [1]}", "recipe.label_smoothing=0.1",
        "recipe.head_epochs=2",
    ],
}  # fmt: skip


class Killed(BaseException):
    """As SIGKILL: nothing after it is done."""


def killed(*_given: Any) -> None:
    raise Killed


@pytest.mark.parametrize("kind", VARIETY)
def test_stopped_inside_epochs_and_evaluations(tmp_path, monkeypatch, kind):
    """Four sittings: stopped after a step of epochs 1 and 2, and while evaluating between."""
    whole_config = small(tmp_path / "whole", *VARIETY[kind])
    whole = run(whole_config)
    config = small(tmp_path / "parts", *VARIETY[kind])
    for where, call, stands in (
        ("train", 1, "after step 1 of 3 in epoch 1"),
        ("look", 1, "after step 3 of 3 in epoch 1"),
        ("train", 1, "after step 1 of 3 in epoch 2"),
    ):
        with monkeypatch.context() as patch:
            log = signal_at(patch, where, [call])
            torch.manual_seed(call)  # a new process starts with another random state
            with pytest.raises(Interrupted, match=stands):
                run(config)
        assert len(log) == 1
        status = read_json(config.run_dir / "status.json")
        assert status["state"] == "interrupted" and stands in status["message"]
    parts = run(config)
    assert outcome(parts.folder, parts.record) == outcome(whole.folder, whole.record)
    assert len(parts.record["timing"]) == 3
    log_text = (parts.folder / "log.txt").read_text()
    assert "continuing after epoch 1 and 1 of 3 steps" in log_text


def test_stopped_in_the_last_evaluation(tmp_path, monkeypatch):
    whole = run(small(tmp_path / "whole"))
    config = small(tmp_path / "parts")
    calls = 3 * -(-144 // 40)  # the validation part after each epoch, then the test part
    with monkeypatch.context() as patch:
        signal_at(patch, "look", [calls + 2])
        with pytest.raises(Interrupted, match="after epoch 3"):
            run(config)
    assert not (config.run_dir / "record.json").exists()
    parts = run(config)
    assert outcome(parts.folder, parts.record) == outcome(whole.folder, whole.record)


def epochs_take(monkeypatch, seconds: list[float]) -> None:
    """Epochs that take so many seconds by the clock that decides on checkpoints."""
    now = [0.0]
    on_epoch = Progress.on_epoch

    def finished(self: Progress, state: State) -> None:
        on_epoch(self, state)
        now[0] += seconds[state.epoch - 1]

    monkeypatch.setattr(Progress, "on_epoch", finished)
    monkeypatch.setattr(ending, "time", SimpleNamespace(monotonic=lambda: now[0]))


@pytest.mark.parametrize(
    ("save_every", "saved"), [("0", [1, 2, 3, 4, 5, 6]), ("20", [2, 4, 6]), ("null", [6])]
)
def test_checkpoints_are_written_every_so_many_seconds(tmp_path, monkeypatch, save_every, saved):
    """An epoch takes ten seconds. The last one is saved in any case, and the best weights too."""
    save, epochs = run_module.save_checkpoint, []

    def noted(folder: Path, model: Any, optimizer: Any, state: State, best: Any) -> None:
        save(folder, model, optimizer, state, best)
        epochs.append(state.epoch)
        assert checkpoint._best_path(folder, state.best_epoch).is_file()

    epochs_take(monkeypatch, [10.0] * 6)
    monkeypatch.setattr(run_module, "save_checkpoint", noted)
    run(small(tmp_path, "recipe.epochs=6", f"runtime.save_every={save_every}"))
    assert epochs == saved


@pytest.mark.parametrize("stages", ["{}", "{4: 0.01}"])
def test_epochs_after_the_last_checkpoint_come_out_the_same(tmp_path, monkeypatch, stages):
    """Killed in epoch 5, where only epoch 1 was saved: stages open from weights on the device."""
    wanted = ("recipe.epochs=6", f"recipe.stages={stages}", "head=fc", "recipe.lr=0.05")
    whole = run(small(tmp_path / "whole", *wanted))
    config = small(tmp_path / "parts", *wanted, "runtime.save_every=5")
    train, steps = loop.training_loss, itertools.count(1)

    def step(*given: Any) -> Any:
        if next(steps) == 4 * 3 + 2:
            raise Killed
        return train(*given)

    with monkeypatch.context() as patch:
        epochs_take(patch, [10.0, 0, 0, 0, 0, 0])
        patch.setattr(loop, "training_loss", step)
        with pytest.raises(Killed):
            run(config)
    assert checkpoint._read(config.run_dir / "last.pt")["state"]["epoch"] == 1
    parts = run(config)
    found, expected = (outcome(o.folder, o.record) for o in (parts, whole))
    for each in (found, expected):
        del each["record"]["config"]["runtime"]["save_every"]
    assert found == expected


def test_the_command_says_that_it_can_go_on(tmp_path, monkeypatch, capsys):
    arguments = [f"runs={tmp_path / 'runs'}", *SMALL, "hydra.run.dir=."]
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["spinal-train", *arguments])
        signal_at(patch, "train", [2])
        assert cli._main(arguments) == EXIT_INTERRUPTED == 75
    said = capsys.readouterr().err
    assert "stopped after step 2 of 3 in epoch 1; the same command continues" in said
    monkeypatch.setattr(sys, "argv", ["spinal-train", *arguments])
    assert cli._main(arguments) == 0


def flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(("what", "step"), [("flipped", 5), ("cut", 6), ("empty", 8)])
def test_a_damaged_checkpoint_falls_back(tmp_path, monkeypatch, capsys, what, step):
    """In epochs 2 and 3; also where the damaged one has other best weights than the one before."""
    whole = run(small(tmp_path / "whole"))
    config = small(tmp_path / "parts")
    last = interrupted(config, monkeypatch, step) / "last.pt"
    if what == "flipped":
        flip(last)
    else:
        last.write_bytes(last.read_bytes()[: 1000 if what == "cut" else 0])
    parts = run(config)
    said = capsys.readouterr().err
    assert "the last checkpoint is damaged" in said and "previous.pt" in said
    assert "the last checkpoint is damaged" in (parts.folder / "log.txt").read_text()
    assert outcome(parts.folder, parts.record) == outcome(whole.folder, whole.record)


def test_damaged_where_it_brought_new_best_weights(tmp_path):
    """Those of the checkpoint before are still there to fall back to."""
    trainer = run_module._prepare(small(tmp_path, "model=flatten"), torch.device("cpu")).trainer
    model, optimizer = trainer.model, trainer.optimizer
    state, weights = State(0.1), []
    for epoch in (1, 2, 3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(epoch)
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        losses = dict.fromkeys(("lr", "train_loss", "train_accuracy", "val_loss"), 0.5)
        figures = {"epoch": epoch, **losses, "val_accuracy": epoch / 96, "val_correct": epoch}
        times = dict.fromkeys(("train_seconds", "eval_seconds", "images_per_second"), 1.0)
        state.history.append(figures)
        state.timing.append({"epoch": epoch, **times})
        state.epoch = state.best_epoch = state.best_correct = epoch
        checkpoint.save_checkpoint(tmp_path, model, optimizer, state, model.state_dict())
    flip(tmp_path / "last.pt")
    loaded = checkpoint.load_checkpoint(tmp_path, trainer)
    assert loaded is not None and loaded.damaged and loaded.state.epoch == 2
    assert all(tensor.equal(weights[1][name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        next(model.parameters()).zero_()
    checkpoint.load_best(tmp_path, loaded.state, model)
    assert all(tensor.equal(weights[1][name]) for name, tensor in model.state_dict().items())
    assert len(list(tmp_path.glob("best-*"))) == 2  # and no others


def test_killed_between_the_name_of_the_best_weights_and_the_record(tmp_path, monkeypatch, capsys):
    whole = run(small(tmp_path / "whole"))
    config = small(tmp_path / "parts")
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "build_record", killed)
        with pytest.raises(Killed):
            run(config)
    assert (config.run_dir / "best.safetensors").is_file()
    capsys.readouterr()
    parts = run(config)
    assert "damaged" not in capsys.readouterr().err
    assert outcome(parts.folder, parts.record) == outcome(whole.folder, whole.record)


def test_killed_between_the_last_checkpoint_and_its_row(tmp_path, monkeypatch):
    """Every epoch has its row in metrics.csv in the end."""
    config = small(tmp_path)
    save = run_module.save_checkpoint

    def save_then_die(*given: Any) -> None:
        save(*given)
        if given[3].epoch == config.recipe.epochs:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_checkpoint", save_then_die)
        with pytest.raises(Killed):
            run(config)
    assert len((config.run_dir / "metrics.csv").read_text().splitlines()) == 3
    run(config)
    assert len((config.run_dir / "metrics.csv").read_text().splitlines()) == 1 + 3


def test_damaged_again_after_a_fallback(tmp_path, monkeypatch):
    """The damaged checkpoint must not have become the previous one."""
    whole = run(small(tmp_path / "whole"))
    config = small(tmp_path / "parts")
    flip(interrupted(config, monkeypatch, 5) / "last.pt")
    flip(interrupted(config, monkeypatch, 2) / "last.pt")
    parts = run(config)
    assert outcome(parts.folder, parts.record) == outcome(whole.folder, whole.record)
    assert not list(parts.folder.glob("best-*")) and not (parts.folder / "damaged.pt").exists()


def test_damaged_best_weights_are_noticed(tmp_path, monkeypatch):
    folder = interrupted(small(tmp_path), monkeypatch, 4)
    best = next(folder.glob("best-*.safetensors"))
    flip(best, 0.9)
    with pytest.raises(UserError, match=rf"{best.name} does not match.*delete the folder"):
        run(small(tmp_path))


def test_nothing_left_to_fall_back_to(tmp_path, monkeypatch):
    folder = interrupted(small(tmp_path), monkeypatch, 5)
    before = (folder / "last.pt").read_bytes()
    for name in ("last.pt", "previous.pt"):
        flip(folder / name)
    with pytest.raises(UserError, match=r"last\.pt: .*previous\.pt: .*delete the folder"):
        run(small(tmp_path))
    (folder / "last.pt").write_bytes(before)  # the refusal has changed nothing
    assert run(small(tmp_path)).record["selection"]


@pytest.mark.parametrize("other", [["dataset.num_outputs=26"], ["model=flatten"]], ids=str)
def test_the_checkpoint_of_another_model_is_refused(tmp_path, monkeypatch, other):
    folder = interrupted(small(tmp_path), monkeypatch, 4)
    wrong = small(tmp_path, *other)
    wrong.run_dir.mkdir(parents=True)
    for path in folder.iterdir():
        (wrong.run_dir / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"is that of another model: \S+ is .* in this run"):
        run(wrong)


def test_a_checkpoint_without_checksum_is_still_read(tmp_path, monkeypatch):
    """Runs that an older version began."""
    whole = run(small(tmp_path / "whole"))
    config = small(tmp_path / "parts")
    last = interrupted(config, monkeypatch, 4) / "last.pt"
    saved = checkpoint._read(last)
    torch.save(saved, last)
    parts = run(config)
    assert outcome(parts.folder, parts.record) == outcome(whole.folder, whole.record)
