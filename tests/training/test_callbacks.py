"""NaN checks and signals."""

import math
import signal
from types import SimpleNamespace

import pytest
import torch
from helpers.interrupting import signal_in_step
from helpers.variety import SMALL, small

from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import EXIT_INTERRUPTED, UserError
from spinal_repro.io import read_json
from spinal_repro.training import engine
from spinal_repro.training import run as run_module
from spinal_repro.training.callbacks import StopOnSignal
from spinal_repro.training.run import run
from spinal_repro.training.setup import build_run

LINEAR = ("model=flatten", "head=linear", "recipe.batch_size=96")  # one step an epoch


def test_a_diverging_run_names_step_and_images(tmp_path):
    config = small(tmp_path, "recipe.optimizer=sgd", "recipe.lr=1e30")
    with pytest.raises(UserError, match=r"at step (\d) of 3 in epoch 1") as stopped:
        run(config)
    message = str(stopped.value)
    batches = build_run(config, torch.device("cpu")).run.train
    step = int(message.partition("at step ")[2][0])
    named = batches.images(0, 1, step)
    assert f"(training images {', '.join(map(str, named[:8]))}, ...)" in message
    status = read_json(config.run_dir / "status.json")
    assert [status[key] for key in ("state", "message", "epochs")] == ["failed", message, "0/3"]
    assert not (config.run_dir / "last.pt").exists()

    pixels = load_dataset(config.dataset, "data", False).train.images[named].float()
    images, _ = list(batches.epoch(0, 1))[step - 1]
    assert torch.equal((pixels - batches._shift) * batches._scale, images)


def test_debug_continues_from_the_checkpoint_and_names_the_layer(tmp_path):
    """The second epoch diverges. Debugging changes neither the run's folder nor its results."""
    words = ("recipe.optimizer=sgd", "recipe.lr=0.01", "recipe.stages={2: 1e30}")
    with pytest.raises(UserError, match="in epoch 2"):
        run(small(tmp_path, *words))
    config = small(tmp_path, *words, "runtime.debug=nonfinite")
    saved = (config.run_dir / "last.pt").read_bytes()
    with pytest.raises(UserError, match=r"the output of \w+.* at step \d of epoch 2"):
        run(config)
    assert (config.run_dir / "last.pt").read_bytes() == saved
    plain, debugged = (
        run(small(tmp_path / mode, f"runtime.debug={mode}")).record.history
        for mode in ("none", "nonfinite")
    )
    assert debugged == plain


def test_debug_names_a_gradient(tmp_path, monkeypatch):
    """The loss of the step itself is finite; the next one is not."""
    train, calls = engine.training_loss, []

    def training_loss(*given):
        logits, loss = train(*given)
        calls.append(1)
        if len(calls) == 2:
            loss.register_hook(lambda gradient: gradient * math.inf)
        return logits, loss

    monkeypatch.setattr(engine, "training_loss", training_loss)
    with pytest.raises(UserError, match="the loss is nan at step 3 of 3 in epoch 1"):
        run(small(tmp_path))
    calls.clear()
    with pytest.raises(UserError, match=r"the gradient of .* at step 2 of epoch 1"):
        run(small(tmp_path, "runtime.debug=nonfinite"))


def test_an_evaluation_that_is_not_finite_is_never_saved(tmp_path):
    """One step an epoch, of a loss that is finite, gives weights whose outputs are not."""
    config = small(tmp_path, *LINEAR, "recipe.optimizer=adam", "recipe.stages={2: 1e37}")
    for _ in range(2):  # the same each time
        with pytest.raises(UserError, match=r"val_loss is (nan|inf) after epoch 2"):
            run(config)
        saved = torch.load(config.run_dir / "last.pt", weights_only=True)
        assert saved["state"]["epoch"] == 1


def test_a_final_test_that_is_not_finite_leaves_no_record(tmp_path, monkeypatch):
    def spoiled(*given):
        setup = build_run(*given)
        setup.test._pixels = setup.test._pixels.float()
        setup.test._pixels[57] = math.inf
        return setup

    config = small(tmp_path, *LINEAR)
    monkeypatch.setattr(run_module, "build_run", spoiled)
    with pytest.raises(UserError, match="the test loss of the last weights is"):
        run(config)
    with pytest.raises(UserError, match="at the evaluation after epoch 3"):
        run(small(tmp_path, *LINEAR, "runtime.debug=nonfinite"))
    assert not (config.run_dir / "record.json").exists()


def test_a_signal_stops_the_command_which_then_continues(monkeypatch, call):
    signal_in_step(monkeypatch, 5)  # of 3 an epoch
    stopped, finished = (call("spinal-train", *SMALL) for _ in range(2))
    assert stopped.code == EXIT_INTERRUPTED and finished.code == 0
    assert "SIGTERM: stopped, saved after epoch 1; the same command" in stopped.err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_each_of_these_signals_stops_a_run_and_a_second_sigint_at_once(name):
    run, number = SimpleNamespace(stop=""), getattr(signal, name)
    before = signal.getsignal(number)
    with StopOnSignal() as stopper:
        assert callable(signal.getsignal(number)), "it would end the tests"
        signal.raise_signal(number)
        stopper.on_step_end(run)
        with pytest.raises(KeyboardInterrupt, match="second SIGINT"):
            signal.raise_signal(signal.SIGINT)
    assert run.stop == name and signal.getsignal(number) is before


def test_signals_that_the_parent_ignores_stay_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopOnSignal():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
