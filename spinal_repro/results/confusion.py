"""What a classifier takes for what: counts, a row a class, and a picture."""

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


def _percent(value: float) -> str:
    return f"{value:.2f}"


COLUMNS = (
    Column("class", "Class"),
    Column("images", "Images", "of this class"),
    Column("correct", "Right", "of them recognised"),
    Column("recall", "Recall %", "share of the class's images recognised", _percent),
    Column("low", "95 % from", "binomial (Wilson) interval of the recall", _percent),
    Column("high", "to", "", _percent),
    Column("precision", "Precision %", "share of this answer's images that are of it", _percent),
    Column("f1", "F1 %", "harmonic mean of recall and precision", _percent),
)


def confusion(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], outputs: int
) -> NDArray[np.int64]:
    """Counts ``[outputs, outputs]``: row the class, column the answer."""
    return np.bincount(labels * outputs + predictions, minlength=outputs**2).reshape(
        outputs, outputs
    )


def per_class(counts: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row a class that has images or answers; empty where a share has no denominator."""
    rows = []
    for index, name in enumerate(classes):
        images, answers = int(counts[index].sum()), int(counts[:, index].sum())
        right = int(counts[index, index])
        if images == answers == 0:
            continue
        low, high = binomial_interval(right, images) if images else (None, None)
        rows.append(
            {
                "class": name,
                "images": images,
                "correct": right,
                "recall": 100 * right / images if images else None,
                "low": None if low is None else 100 * low,
                "high": None if high is None else 100 * high,
                "precision": 100 * right / answers if answers else None,
                "f1": 200 * right / (images + answers),
            }
        )
    return rows


def draw_confusion(
    counts: NDArray[np.int64], classes: Sequence[str], title: str, path: Path
) -> None:
    """Write the picture of a confusion matrix: shares of each row, counts where they fit.

    Raises:
        UserError: where matplotlib is not installed.
        OSError: where the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("pictures need matplotlib: pip install 'spinal-repro[report]'") from error
    with matplotlib.rc_context({"text.parse_math": False}):  # a folder may be called $x^$
        _draw_confusion(counts, [printable(name) for name in classes], printable(title), path)


def _draw_confusion(
    counts: NDArray[np.int64], classes: Sequence[str], title: str, path: Path
) -> None:
    from matplotlib.figure import Figure

    count = len(classes)
    side = min(3 + 0.45 * count, 16)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    figure.colorbar(shown, ax=axes, shrink=0.8, label="share of the class's images, %")
    axes.set(title=title, xlabel="answer", ylabel="class")
    step = max(1, -(-count // 50))  # at most fifty names an axis
    places, names = range(0, count, step), [classes[i] for i in range(0, count, step)]
    axes.set_xticks(places, names, rotation=90)
    axes.set_yticks(places, names)
    if count <= NUMBERS_UP_TO:
        for row, column in np.argwhere(counts):
            colour = "black" if shares[row, column] > 55 else "white"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomic(path, picture.getvalue())
