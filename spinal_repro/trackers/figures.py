"""Plots the history of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = {"train": "#0072B2", "val": "#D55E00", "test": "#000000"}


def draw_history(history: Sequence[Mapping[str, Any]], title: str, path: Path) -> Path:
    """Plot loss and accuracy of each epoch as a PNG; ImportError without matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(title.replace("$", r"\$"))
    epochs = [entry["epoch"] for entry in history]
    panels = zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True)
    for axes, metric, scale in panels:
        for part, colour in COLOURS.items():
            if all(f"{part}_{metric}" in entry for entry in history):
                values = [scale * entry[f"{part}_{metric}"] for entry in history]
                axes.plot(epochs, values, "o-", color=colour, label=part)
        axes.set(xlabel="epoch", ylabel=metric if scale == 1 else f"{metric}, %")
        axes.legend()
    figure.savefig(path, dpi=100)
    return path
