"""Optimizers and learning-rate rules.

The private parts of PyTorch that `optim` uses were seen to work with torch 2.7 to 2.14.
"""

import dataclasses

import pytest
import torch
from helpers.composing import composed

from spinal_repro.errors import UserError
from spinal_repro.training import optim
from spinal_repro.training.optim import LR_RULES, EpochResult, build_optimizer

OPTIONS = {"SGD": {"lr": 0.1, "momentum": 0.9}, "Adam": {"lr": 0.01, "weight_decay": 0.1}}


def result(epoch=3, accuracy=0.5, best=0.5, lr=1.0, base_lr=1.0, seed=0):
    return EpochResult(epoch, accuracy, best, lr, base_lr, seed)


@pytest.mark.parametrize("tie_is_better", [False, True])
@pytest.mark.parametrize("name", ["redraw", "divide"])
def test_the_rate_changes_only_without_improvement(name, tie_is_better):
    rule = LR_RULES.build(name, {"tie_is_better": tie_is_better})
    assert rule.next_lr(result(accuracy=0.6)) == 1.0
    assert rule.next_lr(result(accuracy=0.4)) < 1.0
    if name == "divide":
        assert rule.next_lr(result(accuracy=0.4, lr=0.3)) == pytest.approx(0.1)  # cumulative
    assert (rule.next_lr(result()) == 1.0) is tie_is_better


@pytest.mark.parametrize("power", [3, 5])
def test_redraw_has_the_moments_of_the_recipe(power):
    """base * U**p has mean base/(p+1) and median base/2**p."""
    rule = LR_RULES.build("redraw", {"power": power})
    rates = [rule.next_lr(result(i, accuracy=0, base_lr=0.005)) for i in range(4000)]
    draws = torch.tensor(rates) / 0.005
    assert draws.min() >= 0 and draws.max() <= 1
    mean, variance = 1 / (power + 1), 1 / (2 * power + 1) - 1 / (power + 1) ** 2
    assert draws.mean() == pytest.approx(mean, abs=4 * (variance / 4000) ** 0.5)
    below_median = (draws < 0.5**power).float().mean()
    assert below_median == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)


def test_redraw_depends_on_seed_and_epoch_alone():
    rule = LR_RULES.build("redraw", {})
    first = rule.next_lr(result(accuracy=0.1, lr=0.002))
    assert rule.next_lr(result(accuracy=0.2, lr=0.001)) == first
    assert rule.next_lr(result(accuracy=0.1, seed=1)) != first
    assert rule.next_lr(result(epoch=4, accuracy=0.1)) != first


def test_divide_at_is_the_committed_rule_of_cifar10():
    """1e-3 (epoch indices 0-1), /3 (2-21), /9 (22), /27 (23), 1.7e-8 (30)."""
    recipe = composed("model=cifar_cnn", "recipe=cifar_cnn_committed_fc").recipe
    options = dict(recipe.lr_rule)
    rule = LR_RULES.build(options.pop("name"), options)
    rates = [recipe.lr]
    for epoch in range(1, 40):
        rates.append(rule.next_lr(result(epoch, lr=rates[-1])))
    for index, expected in {0: 1e-3, 1: 1e-3, 2: 3.33e-4, 21: 3.33e-4, 22: 1.11e-4, 23: 3.7e-5,
                            25: 4.1e-6, 30: 1.7e-8}.items():  # fmt: skip
        assert rates[index] == pytest.approx(expected, rel=0.02), index


def test_redraw_late():
    rule = LR_RULES.build("redraw_late", {"start": 100})
    for epoch in (1, 50, 100):
        assert rule.next_lr(result(epoch)) == 1.0 and not rule.restarts(result(epoch))
    draws = [rule.next_lr(result(epoch)) for epoch in range(101, 1101)]
    assert rule.restarts(result(101)) and max(draws) <= 5
    assert sum(draws) / len(draws) == pytest.approx(5 / 4, rel=0.1)  # mean of U^3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("divide", {"factor": 1}), ("divide_at", {"factor": 0}), ("redraw_late", {"start": -1}),
        ("step", {"step": 0}), ("step", {"factor": 1.0}), ("redraw", {"power": 0}),
    ],
)  # fmt: skip
def test_rules_refuse_options_out_of_range(name, options):
    with pytest.raises(UserError):
        LR_RULES.build(name, options)


def test_optimizers_match_the_recipes():
    weights = [torch.nn.Parameter(torch.zeros(2))]
    recipe = composed("dataset=mnist").recipe
    sgd = build_optimizer(recipe, weights)
    assert isinstance(sgd, torch.optim.SGD)
    expected = {"lr": 0.01, "momentum": 0.5, "dampening": 0, "weight_decay": 0, "nesterov": False}
    assert {key: sgd.defaults[key] for key in expected} == expected
    adam = build_optimizer(composed("dataset=mnist", "model=vgg5").recipe, weights)
    assert isinstance(adam, torch.optim.Adam)
    expected = {"lr": 0.005, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}
    assert {key: adam.defaults[key] for key in expected} == expected
    for wrong, message in (("sdg", "did you mean 'sgd'"), ("adam", "momentum")):
        with pytest.raises(UserError, match=message):
            build_optimizer(dataclasses.replace(recipe, optimizer=wrong), weights)


@pytest.mark.parametrize("name", OPTIONS)
def test_optimizers_step_as_those_of_pytorch_and_share_their_checkpoints(name):
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4)) for _ in range(2)]
    ours, theirs = (
        getattr(library, name)([weight], fused=True, **OPTIONS[name])
        for library, weight in zip((optim, torch.optim), weights, strict=True)
    )
    for step in range(4):
        for weight, optimizer in zip(weights, (ours, theirs), strict=True):
            (weight.sin() * (step + 1)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            assert weight.grad is None
        assert torch.equal(*weights)
        assert str(ours.state_dict()) == str(theirs.state_dict())
        saved = ours.state_dict(), theirs.state_dict()
        theirs.load_state_dict(saved[0])
        ours.load_state_dict(saved[1])
