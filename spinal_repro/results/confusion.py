"""Metrics of each class, from a confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinal_repro.records.statistics import binomial_interval
from spinal_repro.results.tables import PERCENT, Column, interval_columns

COLUMNS = (
    Column("class", "Class"),
    Column("images", "Images", "of this class"),
    Column("correct", "Correct", "of these"),
    Column("recall", "Recall %", "correct predictions per image of the class", PERCENT),
    *interval_columns("binomial (Wilson) interval of the recall", "", PERCENT),
    Column("precision", "Precision %", "correct per prediction of the class", PERCENT),
    Column("f1", "F1 %", "harmonic mean of recall and precision", PERCENT),
)


def per_class(counts: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Compute the row of each class with images or predictions; undefined values are omitted."""
    rows = []
    numbers = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    for name, images, answers, right in zip(classes, *(n.tolist() for n in numbers), strict=True):
        row: dict[str, Any] = {"class": name, "images": images, "correct": right}
        if images:
            low, high = binomial_interval(right, images)
            row |= {"recall": 100 * right / images, "low": 100 * low, "high": 100 * high}
        if answers:
            row["precision"] = 100 * right / answers
        if images or answers:
            rows.append(row | {"f1": 200 * right / (images + answers)})
    return rows
