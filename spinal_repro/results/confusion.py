"""Confusion matrix of a classifier: counts, a row for each class, and a picture."""

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

NUMBERS_UP_TO = 20  # classes whose counts are written into the picture
NAMES_UP_TO = 50  # of an axis; of more classes every second one is named, every third, ...

_PERCENT = "{:.2f}".format

COLUMNS = (
    Column("class", "Class"),
    Column("images", "Images", "of this class"),
    Column("correct", "Right", "of them recognised"),
    Column("recall", "Recall %", "share of the class's images recognised", _PERCENT),
    Column("low", "95 % from", "binomial (Wilson) interval of the recall", _PERCENT),
    Column("high", "to", "", _PERCENT),
    Column("precision", "Precision %", "share of this answer's images that are of it", _PERCENT),
    Column("f1", "F1 %", "harmonic mean of recall and precision", _PERCENT),
)


def confusion(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], outputs: int
) -> NDArray[np.int64]:
    """Count images ``[outputs, outputs]``: row the class, column the answer."""
    counts = np.bincount(labels * outputs + predictions, minlength=outputs**2)
    return counts.reshape(outputs, outputs)


def per_class(counts: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each class with images or answers, without shares of nothing."""
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(classes):
        images, answers = int(counts[index].sum()), int(counts[:, index].sum())
        right = int(counts[index, index])
        row: dict[str, Any] = {"class": name, "images": images, "correct": right}
        if images:
            low, high = binomial_interval(right, images)
            row |= {"recall": 100 * right / images, "low": 100 * low, "high": 100 * high}
        if answers:
            row["precision"] = 100 * right / answers
        if images or answers:
            rows.append(row | {"f1": 200 * right / (images + answers)})
    return rows


def draw_confusion(
    counts: NDArray[np.int64], classes: Sequence[str], title: str, path: Path
) -> None:
    """Write a PNG of a confusion matrix: shares of each row, counts where they fit."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("pictures need matplotlib: pip install 'spinal-repro[report]'") from error
    # a dollar sign would begin a formula: a folder may be called $x^$
    title, *classes = (printable(text).replace("$", r"\$") for text in (title, *classes))
    count = len(classes)
    side = min(3 + 0.45 * count, 16)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    figure.colorbar(shown, ax=axes, shrink=0.8, label="share of the class's images, %")
    axes.set(title=title, xlabel="answer", ylabel="class")
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
