"""A run's history as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = {"train": "#0072B2", "val": "#D55E00", "test": "#000000"}


def draw_history(history: Sequence[Mapping[str, Any]], title: str, path: Path) -> Path:
    """Draw loss and accuracy after each epoch as a PNG.

    Args:
        history: One entry an epoch.
        title: Heading.
        path: Where to write it.

    Returns:
        The path.

    Raises:
        ImportError: where matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(title.replace("$", r"\$"))
    epochs = [entry["epoch"] for entry in history]
    for axes, what, scale, unit in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), ("", ", %"), strict=True
    ):
        for part, colour in COLOURS.items():
            values = [entry.get(f"{part}_{what}") for entry in history]
            known = [scale * value for value in values if value is not None]
            if len(known) == len(epochs):
                axes.plot(epochs, known, "o-", color=colour, label=part)
        axes.set(xlabel="epoch", ylabel=f"{what}{unit}")
        axes.legend()
    figure.savefig(path, dpi=100)
    return path
