"""The learning-rate rules of the CIFAR and Arch2 scripts against their recipes."""

import pytest

from spinal_repro.config.compose import compose
from spinal_repro.errors import UserError
from spinal_repro.training.optim import LR_RULES, EpochResult


def result(epoch, accuracy=0.5, best=0.5, lr=1.0, base=1.0):
    return EpochResult(epoch, accuracy, best, lr, base, seed=0)


def test_divide():
    rule = LR_RULES.build("divide", {})
    assert rule.next_lr(result(3, accuracy=0.6)) == rule.next_lr(result(3)) == 1.0
    assert rule.next_lr(result(3, accuracy=0.4, lr=0.3)) == pytest.approx(0.1)
    strict = LR_RULES.build("divide", {"tie_is_better": False})
    assert strict.next_lr(result(3)) == pytest.approx(1 / 3)


def test_divide_at_is_the_committed_rule_of_cifar10():
    """Recipes 2.4: 1e-3 (epoch indices 0-1), /3 (2-21), /9 (22), /27 (23), 1.7e-8 (30)."""
    recipe = compose(["model=cifar_cnn", "recipe=cifar_cnn_committed_fc"]).recipe
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
        assert rule.next_lr(result(epoch, lr=1.0)) == 1.0 and not rule.restarts(result(epoch))
    draws = [rule.next_lr(result(epoch)) for epoch in range(101, 1101)]
    assert rule.restarts(result(101)) and max(draws) <= 5
    assert sum(draws) / len(draws) == pytest.approx(5 / 4, rel=0.1)  # mean of U^3


@pytest.mark.parametrize(
    ("dataset", "lr", "rule"),
    [
        ("mnist", 0.01, "redraw_late"), ("fashion_mnist", 0.005, "redraw_late"),
        ("kmnist", 0.1, "redraw"), ("qmnist", 0.1, "divide"), ("emnist_digits", 0.1, "divide"),
    ],
)  # fmt: skip
def test_arch2_recipes(dataset, lr, rule):
    recipe = compose([f"dataset={dataset}", "model=arch2"]).recipe
    options = dict(recipe.lr_rule)
    assert (recipe.lr, options.pop("name")) == (lr, rule)
    LR_RULES.build(rule, options)
    faithful = compose([f"dataset={dataset}", "model=arch2", "recipe=arch2_committed"]).recipe
    assert faithful.lr_rule == {"name": "constant"}


@pytest.mark.parametrize(
    ("name", "options"),
    [("divide", {"factor": 1}), ("divide_at", {"factor": 0}), ("redraw_late", {"start": -1})],
)
def test_refusals(name, options):
    with pytest.raises(UserError):
        LR_RULES.build(name, options)
