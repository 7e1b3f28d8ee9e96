"""Optimizers and learning-rate rules."""

import dataclasses

import pytest
import torch

from spinal_repro.config.compose import compose
from spinal_repro.errors import UserError
from spinal_repro.training.optim import LR_RULES, EpochResult, build_optimizer


def result(accuracy: float, best: float, *, epoch: int = 3, lr: float = 0.002, seed: int = 0):
    return EpochResult(epoch=epoch, accuracy=accuracy, best=best, lr=lr, base_lr=0.005, seed=seed)


def test_constant_keeps_the_rate():
    rule = LR_RULES.build("constant", {})
    assert rule.next_lr(result(0.1, 0.9)) == 0.002


@pytest.mark.parametrize("tie_is_better", [False, True])
def test_redraw_happens_without_improvement_alone(tie_is_better):
    rule = LR_RULES.build("redraw", {"power": 3, "tie_is_better": tie_is_better})
    assert rule.next_lr(result(0.9, 0.8)) == 0.002
    assert rule.next_lr(result(0.7, 0.8)) != 0.002
    assert (rule.next_lr(result(0.8, 0.8)) == 0.002) is tie_is_better


@pytest.mark.parametrize("power", [3, 5])
def test_redraw_has_the_moments_of_the_recipe(power):
    """base * U**p has mean base/(p+1) and median base/2**p (recipes 1.4: /4 and /8 for R3)."""
    rule = LR_RULES.build("redraw", {"power": power})
    draws = torch.tensor([rule.next_lr(result(0, 1, epoch=i)) for i in range(4000)]) / 0.005
    assert draws.min() >= 0 and draws.max() <= 1
    mean, variance = 1 / (power + 1), 1 / (2 * power + 1) - 1 / (power + 1) ** 2
    assert draws.mean() == pytest.approx(mean, abs=4 * (variance / 4000) ** 0.5)
    below_median = (draws < 0.5**power).float().mean()
    assert below_median == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)


def test_redraw_depends_on_seed_and_epoch_alone():
    rule = LR_RULES.build("redraw", {})
    first = rule.next_lr(result(0.1, 0.9, lr=0.002))
    assert rule.next_lr(result(0.2, 0.5, lr=0.001)) == first
    assert rule.next_lr(result(0.1, 0.9, seed=1)) != first
    assert rule.next_lr(result(0.1, 0.9, epoch=4)) != first


def test_optimizers_match_the_recipes():
    weights = [torch.nn.Parameter(torch.zeros(2))]
    sgd = build_optimizer(compose(["dataset=mnist"]).recipe, weights)
    assert isinstance(sgd, torch.optim.SGD)
    expected = {"lr": 0.01, "momentum": 0.5, "dampening": 0, "weight_decay": 0, "nesterov": False}
    assert {key: sgd.defaults[key] for key in expected} == expected
    adam = build_optimizer(compose(["dataset=mnist", "model=vgg5"]).recipe, weights)
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.defaults["lr"], adam.defaults["betas"]) == (0.005, (0.9, 0.999))
    assert (adam.defaults["eps"], adam.defaults["weight_decay"]) == (1e-8, 0)


def test_wrong_optimizers_are_refused():
    weights = [torch.nn.Parameter(torch.zeros(2))]
    recipe = compose(["dataset=mnist"]).recipe
    with pytest.raises(UserError, match="did you mean 'sgd'"):
        build_optimizer(dataclasses.replace(recipe, optimizer="sdg"), weights)
    with pytest.raises(UserError, match="momentum"):
        build_optimizer(dataclasses.replace(recipe, optimizer="adam"), weights)


@pytest.mark.parametrize("model", ["cnn", "vgg5"])  # SGD with momentum, and Adam
def test_optimizers_step_as_pytorch_s_and_share_their_checkpoints(model):
    recipe = dataclasses.replace(compose([f"model={model}"]).recipe, weight_decay=0.01)
    nets = [torch.nn.Linear(4, 3) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    ours = build_optimizer(recipe, nets[0].parameters())
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[recipe.optimizer]
    assert isinstance(ours, kind)
    settings = {"momentum": recipe.momentum} if recipe.momentum else {}
    theirs = kind(nets[1].parameters(), recipe.lr, weight_decay=0.01, fused=True, **settings)
    for step in range(4):
        x = torch.randn(5, 4)
        for net, optimizer in zip(nets, (ours, theirs), strict=True):
            net(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            assert all(p.grad is None for p in net.parameters())
        assert torch.equal(nets[0].weight, nets[1].weight) and torch.equal(
            nets[0].bias, nets[1].bias
        )
        if step == 1:
            saved = ours.state_dict(), theirs.state_dict()
            assert saved[0].keys() == saved[1].keys()
            theirs.load_state_dict(saved[0])
            ours.load_state_dict(saved[1])
