"""The training loop on small real data."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.composing import composed

from spinal_repro.config.schema import Config
from spinal_repro.errors import UserError
from spinal_repro.seeds import stream_seed
from spinal_repro.training import engine
from spinal_repro.training.device import autocast
from spinal_repro.training.engine import (
    Callback,
    Run,
    State,
    fit,
    train_one_epoch,
)
from spinal_repro.training.evaluation import Evaluation, evaluate
from spinal_repro.training.loss import mixed, training_loss
from spinal_repro.training.setup import build_run

CPU = torch.device("cpu")
SMALL = ["model=flatten", "data.limit=200", "recipe.epochs=2", "recipe.batch_size=64"]


def build(*overrides: str) -> tuple[Config, Run]:
    config = composed(*SMALL, *overrides)
    return config, build_run(config, CPU).run


def train(*overrides: str) -> tuple[Run, State]:
    _, run = build(*overrides)
    fit(run)
    return run, run.state


def test_the_history_depends_on_the_seed_alone():
    histories = []
    for seed in (0, 0, 1):
        torch.rand(7)  # what was drawn before changes nothing
        histories.append(train("head=fc", "data.limit=64", f"seed={seed}")[1].history)
    assert histories[0] == histories[1] != histories[2]


def test_both_heads_see_the_same_batches():
    (_, fc), (_, spinal) = build("head=fc", "model=cnn"), build("head=spinal", "model=cnn")
    for one, other in zip(fc.train.epoch(0, 1), spinal.train.epoch(0, 1), strict=True):
        assert all(map(torch.equal, one, other))


def test_evaluation_counts_every_image_once_in_any_batch_size():
    runs = [build(f"recipe.eval_batch_size={size}")[1] for size in (1, 7, 1000)]
    first, *others = (evaluate(run.model, run.select, run.autocast) for run in runs)
    for other in others:
        assert (other.correct, other.count) == (first.correct, first.count)
        assert torch.equal(other.predictions, first.predictions)
        assert other.loss == pytest.approx(first.loss, rel=1e-5)


@pytest.mark.parametrize("eval_mode_after", [0, 1])
def test_train_figures_are_those_of_a_plain_loop(eval_mode_after):
    """Losses, accuracies and weights of two epochs against a loop written in the plainest way.

    With recipe.eval_mode_after=1 batch norm uses and keeps the statistics of epoch 1 (Q44).
    """
    sgd = ("recipe.optimizer=sgd", "recipe.lr=0.01", "recipe.momentum=0.5")
    overrides = ("head=spinal", "head.norm=true", *sgd, f"recipe.eval_mode_after={eval_mode_after}")
    made, state = train(*overrides)
    config, plain = build(*overrides)
    optimizer = torch.optim.SGD(plain.model.parameters(), config.recipe.lr, config.recipe.momentum)
    statistics = []
    for epoch in (1, 2):
        plain.model.train(epoch == 1 or not eval_mode_after)
        total, right = 0.0, 0
        for images, labels in plain.train.epoch(config.seed, epoch):
            logits = plain.model(images)
            loss = torch.nn.functional.nll_loss(torch.log_softmax(logits, 1), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            right += int((logits.argmax(1) == labels).sum())
        count, entry = plain.train.num_images, state.history[epoch - 1]
        assert entry["train_loss"] == pytest.approx(total / count, rel=1e-5)
        assert entry["train_accuracy"] == right / count
        means = [m for n, m in plain.model.state_dict().items() if n.endswith("running_mean")]
        statistics.append(torch.cat(means).clone())
    assert torch.equal(*statistics) == bool(eval_mode_after)
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(made.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def noted(run, note):
    """Train, and return what the function finds after each epoch."""
    found, callback = [], Callback()
    callback.on_epoch_end = lambda *of: found.append(note(*of))
    fit(run, [callback])
    return found


def test_the_first_of_equal_epochs_is_selected_and_rates_follow_the_rule():
    """With an accuracy that never moves, epoch 1 stays selected and R3 redraws each time."""
    _, run = build(
        "recipe.epochs=4", "recipe.lr=1e-12", "++recipe.lr_rule={name: redraw, power: 3}"
    )
    best, state = noted(run, lambda run, is_best: is_best), run.state
    assert len({entry["val_correct"] for entry in state.history}) == 1
    assert best == [True, False, False, False] and state.best_epoch == 1
    rates = [entry["lr"] for entry in state.history]
    assert rates[0] == rates[1] == 1e-12  # epoch 1 improved on nothing at all
    assert len({*rates[1:], state.lr}) == 4 and max(rates) <= 1e-12


@pytest.mark.parametrize("metric, epoch", [("accuracy", 1), ("macro_f1", 2), ("kappa", 2)])
def test_another_metric_selects_another_epoch(monkeypatch, metric, epoch):
    """Nine images of class 0 and one of class 1: first all taken for 0, then three for 1."""
    labels, answers = np.array([0] * 9 + [1]), [np.zeros(10, int), np.array([0] * 7 + [1] * 3)]
    parts = [np.eye(2)[answer] for answer in answers]
    made = [
        Evaluation(int((a == labels).sum()), 10, 1.0, torch.tensor(a), labels, p)
        for a, p in zip(answers, parts, strict=True)
    ]
    monkeypatch.setattr(engine, "evaluate", lambda *_: made.pop(0))
    rule = "++recipe.lr_rule={name: divide, factor: 10}"
    run, state = train(f"protocol.select_metric={metric}", "recipe.lr=1e-3", rule)
    assert state.best_epoch == epoch and [e["val_accuracy"] for e in state.history] == [0.9, 0.8]
    assert state.lr == pytest.approx(1e-4 if epoch == 1 else 1e-3), "the rule follows the metric"
    assert state.best_score == max(entry[f"val_{metric}"] for entry in state.history)
    assert run.best.keys() == run.model.state_dict().keys()


@pytest.mark.parametrize("metric, images, named", [("auc", 9, "10 classes"), ("kappa", 1, "has 1")])
def test_a_metric_that_the_selecting_part_does_not_define(metric, images, named):
    with pytest.raises(UserError, match=f"select_metric={metric} needs .*{named}.*macro_f1"):
        build(f"protocol.select_metric={metric}", f"data.limit={images}")


def test_kept_probabilities_are_those_of_the_predictions():
    _, run = build("runtime.precision=bf16")
    plain = evaluate(run.model, run.select, run.autocast)
    kept = evaluate(run.model, run.select, run.autocast, keep=True)
    assert plain.probabilities is None and torch.equal(kept.predictions, plain.predictions)
    assert np.allclose(kept.probabilities.sum(axis=1), 1)
    assert np.array_equal(kept.probabilities.argmax(axis=1), kept.predictions.numpy())
    assert np.array_equal(kept.labels, run.select.labels.numpy())
    right = kept.probabilities[np.arange(kept.count), kept.labels]
    assert -np.log(right).mean() == pytest.approx(kept.loss, rel=1e-3)


def test_callbacks_see_every_step_and_epoch_in_order():
    seen = []

    class Seen(Callback):
        def on_fit_start(self, run):
            seen.append("start")

        def on_step_end(self, run, step, losses, num_images):
            assert losses[:step].all() and not losses[step:].any()
            seen.append((run.state.epoch, step, num_images))

        def on_epoch_end(self, run, is_best):
            seen.append(run.state.epoch)

    _, run = build("recipe.batch_size=128")
    fit(run, [Seen()])
    assert seen == ["start", (0, 1, 128), (0, 2, 72), 1, (1, 1, 128), (1, 2, 72), 2]


def test_bf16_computes_in_bf16_and_keeps_fp32_weights():
    with autocast(CPU, "bf16")():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    made, _ = train("runtime.precision=bf16", "data.limit=64", "recipe.epochs=1")
    assert {p.dtype for p in made.model.parameters()} == {torch.float32}


def test_the_first_epochs_may_train_the_head_alone():
    momentum = ("recipe.optimizer=sgd", "recipe.momentum=0.9")
    _, made = build("model=cnn", "recipe.epochs=3", "recipe.head_epochs=2", *momentum)
    first = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}

    def moved(run, _):
        now = run.model.state_dict()
        return {n.partition(".")[0] for n in now if not torch.equal(now[n], first[n])}

    assert noted(made, moved) == [{"head"}, {"head"}, {"head", "backbone"}]


SGD = ("recipe.optimizer=sgd", "recipe.lr=0.1", "recipe.momentum=0")


def moves(*overrides):
    """Length of the first step of each part of a network, with plain SGD."""
    _, run = build("model=cnn", "recipe.batch_size=200", "recipe.epochs=1", *SGD, *overrides)
    first = copy.deepcopy(run.model)
    train_one_epoch(run, 1)
    pairs = ((getattr(m, part) for m in (first, run.model)) for part in ("backbone", "head"))
    flat = [[torch.cat([p.flatten() for p in m.parameters()]) for m in pair] for pair in pairs]
    return torch.stack([(b - a).norm().detach() for a, b in flat])


def test_the_rate_of_the_backbone_is_a_share_of_that_of_the_head():
    plain, slow = moves(), moves("recipe.backbone_lr_scale=0.1")
    torch.testing.assert_close(slow, plain * torch.tensor([0.1, 1.0]), rtol=1e-4, atol=0)


def test_gradients_are_clipped_to_their_norm():
    plain, largest = moves(), 0.01
    clipped = moves(f"recipe.clip_grad={largest}")
    assert plain.norm() > 0.1 * largest
    torch.testing.assert_close(clipped, plain * (0.1 * largest / plain.norm()), rtol=1e-3, atol=0)
    assert torch.equal(moves("recipe.clip_grad=1e6"), plain)


def test_averaged_weights_are_evaluated_and_kept():
    overrides = ("model=cnn", "recipe.lr=0.05", *SGD[::2])
    made, state = train(*overrides, "recipe.ema=0.9")
    plain, other = train(*overrides)
    for ours, theirs in zip(state.history, other.history, strict=True):
        assert ours["train_loss"] == theirs["train_loss"]
        assert ours["val_loss"] != theirs["val_loss"]
    found = evaluate(made.average, made.select, made.autocast)
    assert found.metrics("val").items() <= state.history[-1].items()
    assert all(map(torch.equal, made.model.parameters(), plain.model.parameters()))
    if state.best_epoch == state.epoch:
        assert all(map(torch.equal, made.best.values(), made.average.state_dict().values()))


def test_a_stage_starts_the_average_again_from_the_best_weights():
    _, made = build("recipe.ema=0.9", "recipe.stages={2: 1e-30}", "recipe.lr=0.05", *SGD[::2])
    first, second = noted(made, lambda run, _: run.state.history[-1]["val_loss"])
    assert first == second


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_ends_a_run_without_improvement(patience):
    overrides = ("recipe.epochs=9", "recipe.lr=1e-12", f"recipe.patience={patience}")
    _, run = build(*overrides)
    fit(run)
    assert run.state.epoch == 1 + patience and run.finished
    fit(run)  # as after a kill before the record
    assert run.state.epoch == 1 + patience


def test_patience_counts_from_the_best_epoch():
    long = train("recipe.epochs=12", "recipe.lr=0.01")[1].history
    short = train("recipe.epochs=12", "recipe.lr=0.01", "recipe.patience=2")[1]
    assert short.history == long[: short.epoch] and short.epoch > 3
    assert short.epoch in (12, short.best_epoch + 2)


def batch(*overrides):
    _, run = build("recipe.batch_size=64", *overrides)
    return run, *next(run.train.epoch(0, 1))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_images_and_labels_are_mixed_in_equal_shares(kind):
    run, images, labels = batch(f"recipe.{kind}=1.0")
    state = torch.get_rng_state()
    after, shares, ones = mixed(run.mixers, 1, images, labels)
    assert torch.equal(torch.get_rng_state(), state)  # dropout draws as without
    own = F.one_hot(labels, 10).float()
    (share,) = shares[own.bool() & (labels != labels.roll(1))[:, None]].unique()
    torch.testing.assert_close(shares, share * own + (1 - share) * own.roll(1, 0))
    torch.testing.assert_close(ones, torch.ones(len(labels)))
    if kind == "mixup":
        torch.testing.assert_close(
            after, share * images + (1 - share) * images.roll(1, 0), rtol=0, atol=1e-4
        )
    else:
        kept, pasted = after == images, after == images.roll(1, 0)
        assert (kept | pasted).all()
        other = (~kept).any(dim=0).float().mean().item()  # pixels outside the digits are equal
        assert other <= 1 - share + 1e-5
    again = mixed(run.mixers, 1, images, labels)
    assert all(map(torch.equal, again, (after, shares, ones)))
    assert not torch.equal(mixed(run.mixers, 2, images, labels)[1], shares)


def test_one_way_of_mixing_is_drawn_for_each_batch():
    run, images, labels = batch("recipe.mixup=1.0", "recipe.cutmix=1.0")
    sums = []
    for step in range(40):
        after = mixed(run.mixers, step, images, labels)[0]
        sums.append(bool(((after == images) | (after == images.roll(1, 0))).all()))
    assert 8 < sum(sums) < 32


def test_weights_and_shares_compose():
    """The loss of mixed, weighted images is the weighted mean over both labels of each."""
    run, images, labels = batch("recipe.mixup=1.0")
    weights = torch.rand(len(labels))
    weights[:9] = 0
    _, shares, totals = mixed(run.mixers, 1, images, labels, weights)
    share = mixed(run.mixers, 1, images, labels)[1]
    share = share[labels != labels.roll(1)][0, labels[labels != labels.roll(1)][0]]
    logits = torch.randn(len(labels), 10)
    for smoothing in (0.0, 0.2):
        each = [
            weight * part * F.cross_entropy(logits, of, reduction="none", label_smoothing=smoothing)
            for weight, part, of in (
                (weights, share, labels), (weights.roll(1), 1 - share, labels.roll(1)),
            )
        ]  # fmt: skip
        _, loss = training_loss(logits, shares, smoothing, totals)
        torch.testing.assert_close(loss, (each[0] + each[1]).sum() / weights.sum())


def test_a_weighted_loss_is_the_weighted_mean():
    logits, labels = torch.randn(20, 3), torch.arange(20) % 3
    of_class = torch.tensor([0.5, 1.0, 7.0])
    _, loss = training_loss(logits, labels, 0.0, of_class[labels])
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, weight=of_class))
    _, equal = training_loss((logits, [logits]), labels, 0.1, torch.full((20,), 3.0))
    torch.testing.assert_close(equal, training_loss((logits, [logits]), labels, 0.1)[1])
    _, nothing = training_loss(logits, labels, 0.1, torch.zeros(20))
    assert nothing == 0


@pytest.mark.parametrize(
    "override", ["recipe.mixup=0.2", "recipe.class_weights=balanced", "recipe.sampler=balanced"]
)
def test_options_change_the_loss_and_train(override):
    history = train("recipe.epochs=5", "recipe.lr=0.005", override)[1].history
    plain = train("recipe.epochs=5", "recipe.lr=0.005")[1].history
    assert history[0]["train_loss"] != plain[0]["train_loss"]
    assert history[-1]["val_accuracy"] > 0.5


def test_with_mixing_the_larger_share_is_the_label():
    """One step that changes nothing but the statistics."""
    mix = ("recipe.mixup=1.0", "recipe.batch_size=200", "recipe.lr=1e-30", *SGD[::2])
    _, run = build(*mix)
    images, labels = next(run.train.epoch(0, 1))
    seed = stream_seed(run.seed, "augment", 1) + 1
    images, shares, _ = mixed(run.mixers, seed, images, labels)
    expected = (run.model.train()(images).argmax(1) == shares.argmax(1)).sum()
    _, correct, _ = train_one_epoch(run, 1)
    assert correct == expected > 0
