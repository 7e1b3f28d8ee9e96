"""The script that trains the seeds of one configuration together."""

import importlib
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from helpers import graphs
from helpers.composing import changed, composed
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from spinal_repro.errors import UserError
from spinal_repro.models.heads import SpinalHead
from spinal_repro.records.check import check_record
from spinal_repro.records.store import describe
from spinal_repro.training.callbacks import StopOnSignal
from spinal_repro.training.checkpoint import Checkpoint, Interrupted
from spinal_repro.training.engine import Steps, training_step
from spinal_repro.training.graph import NotCapturableError
from spinal_repro.training.loss import training_loss
from spinal_repro.training.run import run
from spinal_repro.training.setup import build_run

SCRIPTS = Path(__file__).parents[2] / "scripts"
if not SCRIPTS.is_dir():
    pytest.skip("scripts/ is in the repository, not in the source archive", allow_module_level=True)
CPU = torch.device("cpu")
# the last batch of an epoch is smaller
SMALL = [
    "dataset=digits", "model=cnn", "protocol=heldout", "data.limit=96", "recipe.epochs=3",
    "recipe.batch_size=40", "runtime.progress=none", "runtime.device=cpu", "runtime.threads=1",
]  # fmt: skip
PLAIN = ["head=spinal"]
FULL = [
    "head=spinal", "head.norm=true", "recipe.optimizer=sgd", "recipe.lr=0.03",
    "recipe.momentum=0.9", "recipe.clip_grad=0.5", "recipe.label_smoothing=0.1",
    "recipe.class_weights=balanced", "recipe.augment=[{name: rotation, degrees: 9}]",
]  # fmt: skip


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("ensemble")
    monkeypatch.delitem(sys.modules, "ensemble")


@pytest.fixture
def no_dropout(monkeypatch):
    """The small CNN has dropout between its convolutions."""
    monkeypatch.setattr(nn.Dropout2d, "forward", lambda self, maps: maps)


def small(runs, *overrides):
    return changed(composed(*SMALL, *overrides), {"runs": str(runs)})


def seeded(config, seed):
    return changed(config, {"seed": seed})


def built(script, seeds, *overrides, graphed=False):
    """An ensemble, and single runs of the same seeds."""
    config = composed(*SMALL, *overrides)
    ours, singles = ([build_run(seeded(config, s), CPU).run for s in seeds] for _ in range(2))
    return script.Ensemble(ours, graphed), singles


@pytest.mark.parametrize("overrides", [PLAIN, FULL], ids=["plain", "full"])
def test_without_dropout_the_records_are_those_of_single_runs(
    script, no_dropout, tmp_path, overrides
):
    records = script.train(small(tmp_path / "together", *overrides), [0, 1, 5])
    assert [record.seed for record in records] == [0, 1, 5]
    single = small(tmp_path / "single", *overrides)
    for record in records:
        alone = run(seeded(single, record.seed)).record
        assert record.identity != alone.identity
        runtime = record.config["runtime"]
        assert runtime["ensemble"] == 3
        alone.config["runtime"]["ensemble"] = 3
        for key in ("config", "environment", "streams", "data", "counts", "selection"):
            assert getattr(record, key) == getattr(alone, key)
        for ours, theirs in zip(record.history, alone.history, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
        assert record.test.last.correct == alone.test.last.correct
    assert len({record.history[0]["train_loss"] for record in records}) == 3


def test_each_seed_follows_its_own_learning_rate(script, no_dropout, tmp_path):
    """After an epoch without improvement the rule draws from the seed's stream."""
    rule = ["recipe.lr=1e-9", "recipe.lr_rule={name: redraw}", *PLAIN]
    records = script.train(small(tmp_path / "together", *rule), [0, 1, 2])
    rates = []
    for record in records:
        alone = run(seeded(small(tmp_path / "single", *rule), record.seed)).record
        rates.append([entry["lr"] for entry in record.history])
        assert rates[-1] == [entry["lr"] for entry in alone.history]
    assert len({last for *_, last in rates}) == 3


@pytest.mark.parametrize("overrides", [PLAIN, FULL], ids=["plain", "full"])
def test_gradients_and_statistics_of_a_step_are_those_of_single_steps(
    script, no_dropout, overrides
):
    ensemble, singles = built(script, [0, 1, 2], *overrides)
    (batch, *_) = ensemble.start(1)
    losses, correct = ensemble.gradients(*batch)
    for k, single in enumerate(singles):
        images, labels, *weights = (part[k] for part in batch)
        smoothing = single.recipe.label_smoothing
        logits, loss = training_loss(single.model.train()(images), labels, smoothing, *weights)
        loss.backward()
        torch.testing.assert_close(losses[k], loss.detach())
        assert int(correct[k]) == int((logits.argmax(1) == labels).sum())
        ours = dict(ensemble.runs[k].model.named_parameters())
        assert all(p.grad.abs().sum() > 0 for p in ours.values())
        for name, weight in single.model.named_parameters():
            torch.testing.assert_close(ours[name].grad, weight.grad, rtol=1e-4, atol=1e-6)
        ours = dict(ensemble.runs[k].model.named_buffers())
        for name, statistic in single.model.named_buffers():
            torch.testing.assert_close(ours[name], statistic)


def test_a_step_of_the_ensemble_is_one_step_of_each_run(script, no_dropout):
    ensemble, singles = built(script, [3, 4], *FULL)
    for step, batch in enumerate(ensemble.start(1)):
        ensemble.take(step, batch)
        for k, single in enumerate(singles):
            single.steps.start(single)
            loss, _ = training_step(single, *(part[k] for part in batch))
            torch.testing.assert_close(ensemble.runs[k].steps.losses[step], loss, rtol=1e-4, atol=0)
            ours = ensemble.runs[k].model.state_dict()
            for name, tensor in single.model.state_dict().items():
                torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-5)
    assert step == 2


def test_each_seed_has_its_own_order_of_the_images(script):
    ensemble, singles = built(script, [0, 1], *PLAIN)
    batches = list(ensemble.start(2))
    for k, single in enumerate(singles):
        for ours, theirs in zip(batches, single.train.epoch(k, 2), strict=True):
            assert all(torch.equal(part[k], own) for part, own in zip(ours, theirs, strict=True))
    assert not torch.equal(batches[0][1][0], batches[0][1][1])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_seeds_draw_different_dropout_masks(script, no_dropout, dropout):
    """Runs of one seed have equal weights and images; only the masks can make them differ."""
    head = ["head=fc", "head.hidden=[50]", f"head.dropout=[0,{dropout}]"]
    ensemble, _ = built(script, [7, 7, 7], *head)
    for step, batch in enumerate(ensemble.start(1)):
        ensemble.take(step, batch)
    losses = ensemble.losses[:, 0].tolist()
    weights = [run.model.head.state_dict()["layers.0.weight"] for run in ensemble.runs[:2]]
    if dropout:
        assert len(set(losses)) == 3 and not torch.allclose(*weights)
    else:
        assert losses == pytest.approx([losses[0]] * 3) and torch.allclose(*weights)


def test_a_head_with_dropout_trains(script, tmp_path):
    config = changed(small(tmp_path, "head=fc"), {"recipe.epochs": 12, "recipe.lr": 0.1})
    for record in script.train(config, [0, 1]):
        losses = [entry["train_loss"] for entry in record.history]
        assert losses[-1] < 0.7 * losses[0]


@pytest.fixture
def captures(script, monkeypatch):
    """The calls of a stand-in for the capture of a CUDA graph.

    Learning rates have single precision, as in a graph, where they are tensors.
    """
    calls, plain = [], Steps.learning_rate

    def capture(step, device):
        calls.append(device)
        return graphs.capture(step, device)

    def rounded(self, run, group):
        return torch.tensor(plain(self, run, group)).item()

    monkeypatch.setattr(script, "capture", capture)
    monkeypatch.setattr(Steps, "learning_rate", rounded)
    return calls


def fitted(script, tmp_path, seeds, *overrides, graphed):
    ensemble, _ = built(script, seeds, *overrides, graphed=graphed)
    checkpoints = [Checkpoint(tmp_path, None, {}) for _ in seeds]
    script.fit(ensemble, checkpoints, StopOnSignal(), None, print)
    return ensemble


@pytest.mark.parametrize(
    ("overrides", "times"),
    [
        (FULL, 1),
        (["head=fc", "recipe.optimizer=adam", "recipe.lr=0.003"], 1),  # dropout
        (["head=fc", "recipe.lr_rule={name: divide_at, epochs: [1]}"], 1),
        (["head=fc", "recipe.lr_rule={name: redraw_late, start: 1}"], 2),  # resets the optimizer
        (["head=fc", "head.norm=true", "recipe.eval_mode_after=2"], 2),
    ],
)
def test_a_captured_step_is_the_same_step(script, tmp_path, captures, overrides, times):
    """In every bit; the last batch of an epoch is smaller and is not captured."""
    eager = fitted(script, tmp_path, [0, 1], *overrides, graphed=False)
    assert not captures
    graphed = fitted(script, tmp_path, [0, 1], *overrides, graphed=True)
    assert len(captures) == times
    for ours, theirs in zip(graphed.runs, eager.runs, strict=True):
        assert ours.state.history == theirs.state.history and len(ours.state.history) == 3
        for one, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
            assert torch.equal(one, other)


class NoWaiting(TorchDispatchMode):
    """Refuses operations that read values from the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in graphs.WAITING
        return func(*args, **(kwargs or {}))


def test_no_step_reads_values_from_the_device(script):
    ensemble, _ = built(script, [0, 1], *FULL)
    for step, batch in enumerate(ensemble.start(1)):
        with NoWaiting():
            ensemble.take(step, batch)
    with pytest.raises(AssertionError), NoWaiting():
        ensemble.losses.sum().item()


def test_a_step_that_cannot_be_captured_is_taken_without(
    script, tmp_path, captures, monkeypatch, capsys
):
    def refused(step, device):
        step()
        raise NotCapturableError("it waits")

    monkeypatch.setattr(script, "capture", refused)
    eager = fitted(script, tmp_path, [0, 1], *FULL, graphed=False)
    found = fitted(script, tmp_path, [0, 1], *FULL, graphed=True)
    assert capsys.readouterr().out.count("without CUDA graph: it waits") == 1
    for ours, theirs in zip(found.runs, eager.runs, strict=True):
        assert ours.state.history == theirs.state.history
        assert ours.optimizer.param_groups[0]["capturable"] is False


def ensemble_dir(config, seed, count):
    return changed(config, {"seed": seed, "runtime.ensemble": count}).run_dir


def test_a_loss_that_is_not_finite_is_refused(script, tmp_path):
    config = small(tmp_path, *PLAIN, "recipe.optimizer=sgd", "recipe.lr=1e20")
    with pytest.raises(UserError, match=r"seed 4: .*loss"):
        script.train(config, [4, 1])
    folder = ensemble_dir(config, 4, 2)
    assert describe(folder)["state"] == "failed" and not (folder / "last.pt").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of POSIX")
def test_an_interrupted_call_resumes_to_the_same_bits(script, tmp_path, monkeypatch):
    whole = script.train(small(tmp_path / "whole", "head=fc"), [0, 1])
    config = small(tmp_path / "stopped", "head=fc")
    ended, end_epoch = [], script.end_epoch

    def stopped(run, *given):
        end_epoch(run, *given)
        ended.append((run.seed, run.state.epoch))
        if len(ended) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(script, "end_epoch", stopped)
    with pytest.raises(Interrupted, match="after epoch 2"):
        script.train(config, [0, 1])
    found = describe(ensemble_dir(config, 0, 2))
    assert (found["state"], found["epochs"]) == ("interrupted", "2/3")
    resumed = script.train(config, [0, 1])
    assert ended == [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)]
    assert [r.history for r in resumed] == [r.history for r in whole]
    assert [r.test for r in resumed] == [r.test for r in whole]


def test_checkpoints_of_different_epochs_start_again(script, tmp_path, monkeypatch):
    whole = script.train(small(tmp_path / "whole", *PLAIN), [0, 1])
    config = small(tmp_path / "killed", *PLAIN)
    save, saved = script.Checkpoint.save, []

    def killed(checkpoint, run):
        if saved.append(run) or len(saved) == 4:  # after the first of two seeds
            raise RuntimeError("killed")
        save(checkpoint, run)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(script.Checkpoint, "save", killed)
        script.train(changed(config, {"runtime.save_every": 0}), [0, 1])
    again = script.train(config, [0, 1])
    assert [r.history for r in again] == [r.history for r in whole]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of POSIX")
def test_a_signal_stops_at_the_next_step_if_nothing_is_lost(script, tmp_path, monkeypatch):
    take, taken = script.Ensemble.take, []

    def signalled(ensemble, step, batch):
        take(ensemble, step, batch)
        taken.append(step)
        if len(taken) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(script.Ensemble, "take", signalled)
    with pytest.raises(Interrupted, match="before the first checkpoint"):
        script.train(small(tmp_path, *PLAIN), [0, 1])
    assert taken == [0]


def test_finished_seeds_are_skipped_and_not_mixed_with_others(script, tmp_path, capsys):
    config = small(tmp_path, *PLAIN)
    records = script.train(config, [0, 1])
    (ensemble_dir(config, 1, 2) / "record.json").unlink()  # as if killed before it was written
    again = script.train(config, [0, 1])
    assert [r.history for r in again] == [r.history for r in records]
    said = capsys.readouterr().out
    assert "already finished: seed 0: test accuracy" in said and "\nseed 1: test accuracy" in said
    with pytest.raises(UserError, match="are finished, in an ensemble of 2"):
        script.train(config, [1, 2])
    assert len(script.train(config, [0, 1, 2])) == 3  # another ensemble
    assert run(config).record.identity not in {record.identity for record in records}


def test_a_record_is_of_another_run_that_is_not_published(script, tmp_path):
    (record, _) = script.train(small(tmp_path, *PLAIN), [0, 1])
    (problem,) = check_record(record, lambda config: record.counts)
    assert "ensemble" in problem
    with pytest.raises(UserError, match="leave it out"):
        run(small(tmp_path, *PLAIN, "runtime.ensemble=2"))


def test_files_of_a_run_have_its_own_weights_alone(script, tmp_path):
    config = small(tmp_path, *PLAIN)
    script.train(config, [0, 1, 2])
    sizes = set()
    for seed in range(3):
        folder = ensemble_dir(config, seed, 3)
        saved = torch.load(folder / "last.pt", weights_only=True)
        for kept in (saved["model"], saved["best"], load_file(folder / "best.safetensors")):
            for tensor in kept.values():
                assert tensor.untyped_storage().nbytes() == tensor.nbytes
        sizes.add(saved["model"]["backbone.conv1.weight"].sum().item())
    assert len(sizes) == 3


@pytest.mark.parametrize(
    "setting, value",
    [
        ("recipe.mixup", 0.2), ("recipe.cutmix", 1.0), ("recipe.ema", 0.9), ("recipe.patience", 2),
        ("recipe.stages", {2: 0.1}), ("recipe.head_epochs", 1), ("runtime.debug", "nonfinite"),
    ],
)  # fmt: skip
def test_recipes_with_other_steps_are_refused(script, tmp_path, setting, value):
    config = changed(small(tmp_path / "runs", *PLAIN), {setting: value})
    with pytest.raises(UserError, match=setting):
        script.train(config, [0, 1])
    assert not (tmp_path / "runs").exists()


def test_a_network_that_reads_values_is_refused(script, tmp_path, monkeypatch):
    plain = SpinalHead.forward
    monkeypatch.setattr(
        SpinalHead, "forward", lambda self, x: plain(self, x if x.sum().item() > 0 else -x)
    )
    with pytest.raises(UserError, match="one by one"):
        script.train(small(tmp_path, *PLAIN), [0, 1])


@pytest.mark.parametrize(
    "words",
    [
        ["mnist/no_such_cell", "--seeds", "0-1"], ["model=cnn", "seed=3", "--seeds", "0-1"],
        ["model=cnn", "--seeds", "0"], ["model=cnn", "--seeds", "4-1"], ["model=cnn"],
        ["model=cnm", "--seeds", "0"], ["mnist/cnn_*", "--seeds", "0-1"],
        ["mnist/cnn_fc", "mnist/cnn_spinal8", "--seeds", "0-1"],
    ],
)  # fmt: skip
def test_a_wrong_command_is_refused_in_one_line(script, here, monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["ensemble.py", *words])
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert stop.value.code == 2 and not list(here.iterdir())
    assert "ensemble.py: " in capsys.readouterr().err.splitlines()[-1]


def test_the_command_trains_the_seeds_in_their_own_folder(script, here, monkeypatch, capsys):
    words = [*SMALL, "--seeds", "0-1", *PLAIN]
    monkeypatch.setattr(sys, "argv", ["ensemble.py", *words])
    script.main()
    assert len(list(here.glob("runs/digits-cnn-spinal/*/s[01]/record.json"))) == 2
    assert [path.name for path in here.iterdir()] == ["runs"]
