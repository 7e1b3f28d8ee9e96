"""Steps as graphs, on the CPU with a stand-in for the capture; tests/cuda has those of CUDA."""

import dataclasses

import pytest
import torch
from helpers import graphs
from helpers.variety import ALL, Everything, small
from torch import nn

from spinal_repro.models.backbones import BACKBONES
from spinal_repro.training import graph
from spinal_repro.training.callbacks import NonFiniteHooks, Progress
from spinal_repro.training.checkpoint import Checkpoint
from spinal_repro.training.engine import Run, Steps, fit
from spinal_repro.training.graph import GraphedSteps
from spinal_repro.training.setup import build_run

CPU = torch.device("cpu")
SHORT = "data.limit=90"  # steps of 32, 32 and 26 images


@pytest.fixture(autouse=True)
def captures(monkeypatch):
    """The calls of the stand-in."""
    calls = []

    def capture(step, device):
        calls.append(device)
        return graphs.capture(step, device)

    monkeypatch.setattr(graph, "capture", capture)
    monkeypatch.setitem(BACKBONES._items, "everything", Everything)
    return calls


@pytest.fixture
def single_precision(monkeypatch):
    """Learning rates in single precision, which they have in a graph, where they are tensors."""
    plain = Steps.learning_rate

    def rounded(self, run, group):
        return torch.tensor(plain(self, run, group)).item()

    monkeypatch.setattr(Steps, "learning_rate", rounded)


def built(tmp_path, *overrides, graphed=True) -> Run:
    run = build_run(small(tmp_path, *overrides), CPU).run
    if graphed:
        run.steps = GraphedSteps()
    return run


def trained(tmp_path, *overrides, graphed=True, callbacks=()) -> Run:
    run = built(tmp_path, *overrides, graphed=graphed)
    fit(run, callbacks)
    return run


def assert_same(one: Run, other: Run, **tolerance: float) -> None:
    """Histories, weights and state of the optimizer are equal."""
    assert len(one.state.history) == len(other.state.history) > 0
    for found, expected in zip(one.state.history, other.state.history, strict=True):
        assert found == pytest.approx(expected, **tolerance)
    for mine, others in (
        (one.model.state_dict(), other.model.state_dict()),
        (one.evaluated.state_dict(), other.evaluated.state_dict()),
        (one.best, other.best),
        *zip(one.optimizer.state.values(), other.optimizer.state.values(), strict=True),
    ):
        assert mine.keys() == others.keys()
        for key, tensor in others.items():
            torch.testing.assert_close(
                mine[key], tensor, rtol=tolerance["rel"], atol=tolerance["abs"]
            )


@pytest.mark.parametrize("case", ALL)
def test_a_graphed_run_is_the_eager_run(tmp_path, captures, single_precision, case):
    """In every bit, with every optimizer, rule, head and option.

    The last batch is smaller and is not captured.
    """
    eager = trained(tmp_path, *ALL[case], SHORT, graphed=False)
    assert not captures
    found = trained(tmp_path, *ALL[case], SHORT)
    assert captures and not found.steps.note
    assert_same(found, eager, rel=0, abs=0)


def test_rounded_learning_rates_change_the_last_digits(tmp_path):
    overrides = ("head=fc", "recipe.optimizer=sgd", "recipe.momentum=0.9", "recipe.lr=0.01")
    eager = trained(tmp_path, *overrides, graphed=False)
    assert_same(trained(tmp_path, *overrides), eager, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("overrides", "times"),
    [
        ([], 1),
        (["recipe.stages={2: 0.5, 3: 0.5}"], 3),
        (["recipe.lr_rule={name: redraw_late, start: 1}"], 2),  # new from the third epoch on
        (["recipe.head_epochs=1"], 2),
        (["recipe.eval_mode_after=2"], 2),
    ],
)
def test_a_step_is_captured_again_where_it_changes(tmp_path, captures, overrides, times):
    trained(tmp_path, "head=fc", "recipe.optimizer=adam", "recipe.momentum=0", *overrides)
    assert len(captures) == times


@pytest.mark.parametrize("rule", ["redraw", "redraw_late, start: 1"])
def test_a_resumed_run_is_the_same_in_every_bit(tmp_path, captures, rule):
    overrides = ("head=fc", "head.norm=true", "recipe.epochs=4", SHORT, "recipe.ema=0.9",
                 f"recipe.lr_rule={{name: {rule}}}")  # fmt: skip
    whole = trained(tmp_path, *overrides)
    checkpoint = Checkpoint(tmp_path, 0, {})
    first = built(tmp_path, *overrides)
    first.recipe = dataclasses.replace(first.recipe, epochs=2)
    fit(first, [checkpoint])
    second = built(tmp_path, *overrides)
    Checkpoint(tmp_path, 0, {}).restore(second)
    assert second.state.epoch == 2
    fit(second)
    assert_same(second, whole, rel=0, abs=0)


def test_a_run_continues_without_its_graph(tmp_path):
    """A checkpoint has the learning rate as a tensor, which the loop replaces."""
    fit(first := built(tmp_path, "recipe.epochs=1"), [Checkpoint(tmp_path, 0, {})])
    second = built(tmp_path, "recipe.epochs=3", graphed=False)
    Checkpoint(tmp_path, 0, {}).restore(second)
    fit(second)
    assert isinstance(first.optimizer.param_groups[0]["lr"], torch.Tensor)
    assert isinstance(second.optimizer.param_groups[0]["lr"], float)
    assert second.state.epoch == 3


class Waiting(nn.Module):
    """A layer that reads a value from the device."""

    def forward(self, values):
        return values if values.sum().item() > 0 else values * 2


def waiting(run: Run) -> None:
    run.model.head = nn.Sequential(Waiting(), run.model.head)


def test_a_model_that_waits_is_trained_without_and_the_log_says_why(tmp_path, captures):
    runs = []
    for graphed in (False, True):
        run = built(tmp_path, "head=fc", SHORT, "recipe.optimizer=adam", graphed=graphed)
        waiting(run)
        with Progress(tmp_path / "log.txt", "none") as progress:
            fit(run, [progress])
        runs.append(run)
    assert_same(runs[1], runs[0], rel=0, abs=0)
    assert len(captures) == 1
    log = (tmp_path / "log.txt").read_text()
    assert log.count("training without CUDA graph: ") == 1 and "waits for the device" in log


def test_the_search_for_nan_trains_without(tmp_path, captures):
    run = trained(tmp_path, "head=fc", callbacks=[NonFiniteHooks()])
    assert "training without CUDA graph" in run.steps.note
    assert_same(run, trained(tmp_path, "head=fc", graphed=False), rel=0, abs=0)


def test_setup_graphs_the_steps_on_cuda_alone(tmp_path):
    runs = {}
    for device in ("cuda", "cpu"):
        config = small(tmp_path, f"runtime.device={device}", "runtime.graph=auto")
        runs[device] = build_run(config, CPU).run.steps
        plain = small(tmp_path, f"runtime.device={device}")
        assert (config.identity() == plain.identity()) == (device == "cpu")
    assert isinstance(runs["cuda"], GraphedSteps) and not isinstance(runs["cpu"], GraphedSteps)
