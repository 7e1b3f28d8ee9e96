"""Metrics against closed forms on hand-made labels."""

import numpy as np
import pytest

from spinal_repro.config.schema import METRICS
from spinal_repro.records.metrics import TITLES, compute, count_confusion, describe_metrics


def certain(predictions, outputs):
    """Probabilities of a classifier that is always sure."""
    return np.eye(outputs)[np.asarray(predictions)]


@pytest.mark.parametrize("outputs", [2, 3, 6, 40])
def test_a_perfect_classifier(outputs):
    labels = np.arange(3 * outputs) % outputs
    found = compute(labels, certain(labels, outputs))
    assert set(found.values()) == {1.0}
    common = {"accuracy", "balanced_accuracy", "macro_f1", "kappa", "auc"}
    more = {"sensitivity", "specificity"} if outputs == 2 else {"top5"} if outputs > 5 else set()
    assert found.keys() == common | more and common == set(METRICS)
    assert list(found) == [name for name in TITLES if name in found]


@pytest.mark.parametrize("outputs", [2, 4])
def test_a_constant_prediction(outputs):
    """Six images of class 0 and two of each other one, all taken for class 0."""
    labels = np.repeat(np.arange(outputs), [6, *[2] * (outputs - 1)])
    share = 6 / len(labels)
    found = compute(labels, certain(np.zeros(len(labels), int), outputs))
    assert found["accuracy"] == share
    assert found["balanced_accuracy"] == 1 / outputs
    assert found["macro_f1"] == pytest.approx(2 * share / (1 + share) / outputs)
    assert found["kappa"] == 0 and found["auc"] == 0.5
    if outputs == 2:
        assert (found["sensitivity"], found["specificity"]) == (0, 1)


def test_two_classes():
    """The second class is the positive one: 3 of 4 found, 4 of 6 others recognised."""
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    positive = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.55, 0.3, 0.25, 0.15, 0.1])
    found = compute(labels, np.stack([1 - positive, positive], axis=1))
    assert (found["sensitivity"], found["specificity"]) == (3 / 4, 4 / 6)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert found["auc"] == pytest.approx(20 / 24)  # pairs in the right order
    chance = (4 * 5 + 6 * 5) / 100  # agreement of independent answers
    assert found["kappa"] == pytest.approx((0.7 - chance) / (1 - chance))
    f1 = 2 * 3 / (5 + 4), 2 * 4 / (5 + 6)
    assert found["macro_f1"] == pytest.approx(sum(f1) / 2)
    assert "macro F1 0.6970" in describe_metrics(found) and "accuracy 0.7000," not in found


def test_top5_and_the_mean_of_each_class_against_the_rest():
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(0, 8, 300), random.dirichlet(np.ones(8), 300)
    found = compute(labels, probabilities)
    ranks = (probabilities > probabilities[np.arange(300), labels][:, None]).sum(axis=1)
    assert found["top5"] == (ranks < 5).mean() > found["accuracy"] == (ranks == 0).mean()
    areas = []
    for c in range(8):
        own, other = probabilities[labels == c, c], probabilities[labels != c, c]
        areas.append((own[:, None] > other).mean())
    assert found["auc"] == pytest.approx(np.mean(areas))


def test_undefined_metrics_are_omitted(recwarn):
    labels = np.array([0, 0, 1, 1])
    three = np.full((4, 3), 1 / 3)
    assert compute(labels, three).keys() == {"accuracy", "balanced_accuracy", "macro_f1", "kappa"}
    broken = np.array([[0.5, 0.5], [np.nan, np.nan], [0.1, 0.9], [0.2, 0.8]])
    assert {"auc", "top5"}.isdisjoint(compute(labels, broken))
    one = compute(np.zeros(4, int), certain([0] * 4, 2))
    assert one.keys() == {"accuracy", "balanced_accuracy", "macro_f1", "specificity"}
    assert not recwarn.list, "scikit-learn warns about undefined values"


def test_confusion_counts_have_every_output():
    counts = count_confusion(np.array([0, 0, 1]), np.array([0, 2, 0]), 4)
    assert counts.tolist() == [[1, 0, 1, 0], [1, 0, 0, 0], [0] * 4, [0] * 4]
