"""Confusion matrix of a classifier: counts, metrics per class, and a plot."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinal_repro.errors import UserError
from spinal_repro.io import printable, write_atomic
from spinal_repro.records.statistics import binomial_interval
from spinal_repro.results.tables import Column

Integers = NDArray[np.int64]
NUMBERS_UP_TO = 20  # classes; above it the plot shows no counts
NAMES_UP_TO = 50  # labels of an axis; with more classes only every second, third, ... is labelled

_PERCENT = "{:.2f}".format

COLUMNS = (
    Column("class", "Class"),
    Column("images", "Images", "of this class"),
    Column("correct", "Correct", "of these"),
    Column("recall", "Recall %", "correct predictions per image of the class", _PERCENT),
    Column("low", "95 % from", "binomial (Wilson) interval of the recall", _PERCENT),
    Column("high", "to", "", _PERCENT),
    Column("precision", "Precision %", "correct per prediction of the class", _PERCENT),
    Column("f1", "F1 %", "harmonic mean of recall and precision", _PERCENT),
)


def confusion(labels: Integers, predictions: Integers, outputs: int) -> Integers:
    """Count images ``[outputs, outputs]``: rows are classes, columns predictions."""
    counts = np.bincount(labels * outputs + predictions, minlength=outputs**2)
    return counts.reshape(outputs, outputs)


def per_class(counts: Integers, classes: Sequence[str]) -> list[dict[str, Any]]:
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


def draw_confusion(counts: Integers, classes: Sequence[str], title: str, path: Path) -> None:
    """Plot a confusion matrix as PNG, normalised by row, with counts where they fit."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("plots need matplotlib: pip install 'spinal-repro[report]'") from error
    # a dollar sign would begin a formula: a folder may be called $x^$
    title, *classes = (printable(text).replace("$", r"\$") for text in (title, *classes))
    count = len(classes)
    side = min(3 + 0.45 * count, 16)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    figure.colorbar(shown, ax=axes, shrink=0.8, label="% of the images of the true class")
    axes.set(title=title, xlabel="predicted class", ylabel="true class")
    places = range(0, count, -(-count // NAMES_UP_TO))
    axes.set_xticks(places, [classes[place] for place in places], rotation=90)
    axes.set_yticks(places, [classes[place] for place in places])
    if count <= NUMBERS_UP_TO:
        for row, column in np.argwhere(counts):
            colour = "black" if shares[row, column] > 55 else "white"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomic(path, picture.getvalue())
