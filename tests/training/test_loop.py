"""The loop on small real data."""

import dataclasses

import pytest
import torch

from spinal_repro.config import compose
from spinal_repro.environment import autocast
from spinal_repro.errors import UserError
from spinal_repro.schema import Config
from spinal_repro.training import run as run_module
from spinal_repro.training.evaluation import evaluate
from spinal_repro.training.finite import NonFiniteLossError
from spinal_repro.training.loop import State, Trainer, fit

CPU = torch.device("cpu")
SMALL = ["data.limit=200", "recipe.epochs=2", "runtime.progress=none"]


def trainer(*overrides: str) -> tuple[Config, Trainer]:
    config = compose([*SMALL, *overrides])
    return config, run_module._prepare(config, CPU).trainer


def train(*overrides: str) -> tuple[Trainer, State]:
    config, made = trainer(*overrides)
    state = State(config.recipe.lr)
    fit(made, state, lambda s, b: None, lambda c, r: None, lambda s: None)
    return made, state


@pytest.mark.parametrize("head", ["fc", "spinal"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_same_seed_gives_the_same_bits(head, precision):
    overrides = (f"head={head}", f"runtime.precision={precision}", "data.limit=64")
    (first, first_state), (second, second_state) = train(*overrides), train(*overrides)
    assert first_state.history == second_state.history
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    _, other = train(*overrides, "seed=1")
    assert other.history != first_state.history


def test_training_does_not_depend_on_what_was_random_before():
    _, first = train()
    torch.manual_seed(12345)
    torch.rand(7)
    _, second = train()
    assert first.history == second.history


def test_both_heads_see_the_same_backbone_and_batches():
    _, fc = trainer("head=fc")
    _, spinal = trainer("head=spinal")
    for mine, other in zip(
        fc.model.backbone.parameters(), spinal.model.backbone.parameters(), strict=True
    ):
        assert torch.equal(mine, other)
    for (images, labels), (other_images, other_labels) in zip(
        fc.train.epoch(0, 1), spinal.train.epoch(0, 1), strict=True
    ):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels)


def test_training_learns():
    _, state = train("data.limit=null", "recipe.epochs=6")
    assert state.history[-1]["val_accuracy"] > 0.8  # ten classes: chance is 0.1
    assert state.history[-1]["train_loss"] < state.history[0]["train_loss"]


def test_evaluation_counts_every_image_once_in_any_batch_size():
    results = []
    for size in (1, 7, 1000):
        _, made = trainer(f"recipe.eval_batch_size={size}")
        results.append(evaluate(made.model, made.select, made.autocast))
    for other in results[1:]:
        assert other.correct == results[0].correct and other.count == results[0].count
        assert torch.equal(other.predictions, results[0].predictions)
        assert other.loss == pytest.approx(results[0].loss, rel=1e-5)


def test_train_figures_are_those_of_a_plain_loop():
    """Loss, accuracy and weights of one epoch against a loop written out in the plainest way."""
    sgd = ("recipe.optimizer=sgd", "recipe.lr=0.01", "recipe.momentum=0.5")
    overrides = ("head=spinal", "model=flatten", "recipe.epochs=1", *sgd)
    made, state = train(*overrides)
    config, plain = trainer(*overrides)
    optimizer = torch.optim.SGD(plain.model.parameters(), config.recipe.lr, config.recipe.momentum)
    plain.model.train()
    total, right = 0.0, 0
    for images, labels in plain.train.epoch(config.seed, 1):
        logits = plain.model(images)
        loss = torch.nn.functional.nll_loss(torch.log_softmax(logits, 1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        right += int((logits.argmax(1) == labels).sum())
    count = plain.train.num_images
    assert state.history[0]["train_loss"] == pytest.approx(total / count, rel=1e-5)
    assert state.history[0]["train_accuracy"] == right / count
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(made.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bad_step", [1, 4])
def test_a_loss_that_is_not_finite_names_its_step(bad_step):
    config, made = trainer("recipe.batch_size=32")

    class Poisoned(torch.nn.Module):
        calls = 0

        def forward(self, images):
            self.calls += 1
            logits = made.model(images)
            return logits * float("nan") if self.calls == bad_step else logits

    poisoned = dataclasses.replace(made, model=Poisoned())
    with pytest.raises(NonFiniteLossError, match=f"nan at step {bad_step} of 7 in epoch 1"):
        fit(poisoned, State(config.recipe.lr), lambda s, b: None, lambda c, r: None, lambda s: None)


def test_the_first_of_equal_epochs_is_selected_and_rates_follow_the_rule():
    """With an accuracy that never moves, epoch 1 stays selected and R3 redraws each time."""
    _, made = trainer(
        "recipe.epochs=4", "recipe.lr=1e-12", "++recipe.lr_rule={name: redraw, power: 3}"
    )
    state = State(1e-12)
    best_flags = []
    fit(made, state, lambda s, b: best_flags.append(b), lambda c, r: None, lambda s: None)
    assert len({entry["val_correct"] for entry in state.history}) == 1
    assert best_flags == [True, False, False, False] and state.best_epoch == 1
    rates = [entry["lr"] for entry in state.history]
    assert rates[0] == rates[1] == 1e-12  # epoch 1 improved on nothing at all
    assert len({*rates[1:], state.lr}) == 4 and max(rates) <= 1e-12


def test_bf16_computes_in_bf16_and_keeps_fp32_weights():
    with autocast(CPU, "bf16")():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    made, _ = train("runtime.precision=bf16", "data.limit=64", "recipe.epochs=1")
    assert {p.dtype for p in made.model.parameters()} == {torch.float32}


def test_the_first_epochs_may_train_the_head_alone():
    overrides = (
        "model=cifar_cnn",
        "dataset=digits",
        "recipe.epochs=3",
        "recipe.head_epochs=2",
        "recipe.optimizer=sgd",
        "recipe.momentum=0.9",
    )
    config, made = trainer(*overrides)
    first = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    moved = []

    def changed(state: State, _: bool) -> None:
        now = made.model.state_dict()
        moved.append({n.partition(".")[0] for n in now if not torch.equal(now[n], first[n])})

    fit(made, State(config.recipe.lr), changed, lambda c, r: None, lambda s: None)
    assert moved == [{"head"}, {"head"}, {"head", "backbone"}]
    with pytest.raises(UserError, match="head_epochs"):
        compose(["recipe.head_epochs=-1"])
