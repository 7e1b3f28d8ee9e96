"""The metrics of each class against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from spinal_repro.records.metrics import count_confusion
from spinal_repro.results.confusion import per_class


def test_figures_are_scikit_learns():
    random = np.random.default_rng(0)
    labels, answers = random.integers(0, 5, (2, 400))
    counts = count_confusion(labels, answers, 5)
    rows = per_class(counts, "abcde")
    precision, recall, f1, images = precision_recall_fscore_support(labels, answers)
    for row, *expected in zip(rows, precision, recall, f1, strict=True):
        found = [row[key] / 100 for key in ("precision", "recall", "f1")]
        assert found == pytest.approx(expected)
        assert row["low"] < row["recall"] < row["high"]
    assert [row["images"] for row in rows] == images.tolist()


def test_classes_without_images_or_answers():
    counts = count_confusion(np.array([0, 0, 1]), np.array([0, 2, 0]), 4)
    rows = {row["class"]: row for row in per_class(counts, "abcd")}
    assert rows.keys() == {"a", "b", "c"}
    assert "precision" not in rows["b"] and rows["b"]["recall"] == 0
    assert "recall" not in rows["c"] and rows["c"]["precision"] == 0
