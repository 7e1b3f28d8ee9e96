"""Optimizers and learning-rate rules.

The private parts of PyTorch that `optim` uses were seen to work with torch 2.7 to 2.14.
"""

import copy
import dataclasses

import pytest
import torch
from helpers.composing import composed

from spinal_repro.errors import UserError
from spinal_repro.training import optim
from spinal_repro.training.optim import (
    LR_RULES,
    EpochResult,
    build_optimizer,
    build_rule,
    stage_at,
    update_average,
)

OPTIONS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "Adam": {"lr": 0.01, "weight_decay": 0.1},
    "AdamW": {"lr": 0.01, "weight_decay": 0.1},
}


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
    changed = {"optimizer": "adamw", "momentum": 0.0, "weight_decay": 0.1}
    adamw = build_optimizer(dataclasses.replace(recipe, **changed), weights)
    assert isinstance(adamw, torch.optim.AdamW) and adamw.defaults["weight_decay"] == 0.1
    nesterov = build_optimizer(dataclasses.replace(recipe, nesterov=True), weights)
    assert nesterov.defaults["nesterov"] and nesterov.defaults["momentum"] == 0.5
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


def rates(recipe):
    """The rate of each epoch, as the loop asks for them."""
    rule, found = build_rule(recipe)[0], []
    for epoch in range(1, recipe.epochs + 1):
        first, base, epochs = stage_at(recipe, epoch)
        if epoch == first:
            found.append(rule.first_lr(base, epochs))
        of_epoch = result(epoch, lr=found[-1], base_lr=base)
        more = {"stage_epoch": epoch - first + 1, "epochs": epochs}
        found.append(rule.next_lr(dataclasses.replace(of_epoch, **more)))
        if epoch + 1 in recipe.stages:
            found.pop()
    return found[: recipe.epochs]


def scheduled(base, epochs, warmup, min_lr):
    """The rates of PyTorch's schedulers."""
    schedulers = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    cosine = schedulers.CosineAnnealingLR(optimizer, epochs - warmup, eta_min=min_lr)
    scheduler = cosine
    if warmup:
        linear = schedulers.LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
        scheduler = schedulers.SequentialLR(optimizer, [linear, cosine], [warmup])
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("min_lr", [0.0, 0.01])
@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (10, 0), (10, 1), (30, 5), (6, 5)])
def test_cosine_is_that_of_pytorch(epochs, warmup, min_lr):
    rule = {"name": "cosine", "warmup": warmup, "min_lr": min_lr}
    recipe = composed("model=flatten", "recipe.lr=0.1").recipe
    recipe = dataclasses.replace(recipe, lr=0.1, epochs=epochs, lr_rule=rule)
    assert rates(recipe) == pytest.approx(scheduled(0.1, epochs, warmup, min_lr), rel=1e-6)
    staged = dataclasses.replace(recipe, epochs=2 * epochs, stages={epochs + 1: 0.05})
    second = scheduled(0.05, epochs, warmup, min_lr)
    assert rates(staged) == pytest.approx([*rates(recipe), *second], rel=1e-6)


def test_only_rates_of_cosine_depend_on_the_number_of_epochs():
    assert [name for name in LR_RULES.names() if LR_RULES[name].uses_epochs] == ["cosine"]


def test_a_rate_of_its_own_for_the_backbone():
    recipe = dataclasses.replace(composed("dataset=mnist").recipe, backbone_lr_scale=0.1)
    body, head = (torch.nn.Linear(2, 2) for _ in range(2))
    frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    parts = [*body.parameters(), frozen]
    optimizer = build_optimizer(recipe, [*parts, *head.parameters()], parts)
    assert [group.get("lr_scale") for group in optimizer.param_groups] == [0.1, None]
    for group, module in zip(optimizer.param_groups, (body, head), strict=True):
        assert list(map(id, group["params"])) == list(map(id, module.parameters()))
    plain = build_optimizer(dataclasses.replace(recipe, backbone_lr_scale=1.0), parts, parts)
    assert len(plain.param_groups) == 1 and "lr_scale" not in plain.param_groups[0]


def test_averages_are_those_of_a_plain_loop():
    """Weights and running statistics; batches are counted, not averaged."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    average = copy.deepcopy(model)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in range(4):
        model(torch.rand(5, 3) + step)
        with torch.no_grad():
            model[0].weight += 1
        update_average(average, model, 0.7)
        for name, tensor in model.state_dict().items():
            new = expected[name] * 0.7 + tensor * 0.3
            expected[name] = new if tensor.is_floating_point() else tensor.clone()
    found = average.state_dict()
    torch.testing.assert_close(found, expected)
    assert found["1.num_batches_tracked"] == 4
    assert not torch.equal(found["0.weight"], model[0].weight)
