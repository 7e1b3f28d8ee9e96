"""Plots of one run as PNG: the curves of its training, its confusion matrix."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spinal_repro.io import printable, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES, CONFUSION = "curves.png", "confusion.png"  # in a run folder
COLOURS = {"train": "#0072B2", "val": "#D55E00", "test": "#000000"}
NUMBERS_UP_TO = 20  # classes; above it the plot shows no counts
NAMES_UP_TO = 50  # labels of an axis; with more classes only every second, third, ... is labelled


def draw_curves(history: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Plot loss and accuracy of each part after each epoch."""
    figure = _figure(9, 3.8)
    figure.suptitle(_plain(title))
    epochs = [entry["epoch"] for entry in history]
    panels = zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True)
    for axes, metric, scale in panels:
        for part, colour in COLOURS.items():
            if all(f"{part}_{metric}" in entry for entry in history):
                values = [scale * entry[f"{part}_{metric}"] for entry in history]
                axes.plot(epochs, values, "o-", color=colour, label=part)
        axes.set(xlabel="epoch", ylabel=metric if scale == 1 else f"{metric}, %")
        axes.legend()
    _save(figure, path)


def draw_confusion(
    counts: NDArray[np.int64], classes: Sequence[str], title: str, path: Path
) -> None:
    """Plot a confusion matrix, normalised by row, with counts where they fit."""
    count, names = len(classes), [_plain(name) for name in classes]
    side = min(3 + 0.45 * count, 16)
    figure = _figure(side + 1, side)
    axes = figure.add_subplot()
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    figure.colorbar(shown, ax=axes, shrink=0.8, label="% of the images of the true class")
    axes.set(title=_plain(title), xlabel="predicted class", ylabel="true class")
    places = range(0, count, -(-count // NAMES_UP_TO))
    axes.set_xticks(places, [names[place] for place in places], rotation=90)
    axes.set_yticks(places, [names[place] for place in places])
    if count <= NUMBERS_UP_TO:
        for row, column in np.argwhere(counts):
            colour = "black" if shares[row, column] > 55 else "white"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    _save(figure, path)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(text: str) -> str:
    """Escape the dollar sign, which would begin a formula: a folder may be called $x^$."""
    return printable(text).replace("$", r"\$")


def _save(figure: "Figure", path: Path) -> None:
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomic(path, picture.getvalue())
