"""The MNIST CNN, epoch by epoch: the supplement's own curves, and those of our runs."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from spinal_repro.paper.cells import Cell, curve, load_cells
from spinal_repro.results.figures.common import HEADS, new_figure
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.epochs import Curve, curves

LABELS = {"accuracy": "Test accuracy, %", "loss": "Test loss"}
PUBLISHED_AS = {
    "accuracy": {"mean accuracy %": "mean", "SD of accuracy": "std"},
    "loss": {"mean loss": "mean"},
}


def published_curves(quantity: str) -> dict[str, DataFrame]:
    """Load the supplement's curves of ``accuracy`` (percent) or ``loss``, by head.

    Rows are epochs; columns ``mean`` and ``std``, the latter empty where it was not published.
    """
    rows = DataFrame(curve())
    return {
        cell.head: rows[rows["cell"] == cell.name]
        .pivot(index="epoch", columns="quantity", values="value")
        .rename(columns=PUBLISHED_AS[quantity])
        .reindex(columns=["mean", "std"])
        .dropna(subset="mean")
        for cell in load_cells("curve")
    }


def measured_curves(findings: ResultsIndex, cell: Cell, quantity: str) -> list[Curve]:
    """Our curves of a cell, one per seed; of runs of several lengths those of the longest."""
    names = (cell.name, cell.shorter or cell.name)
    known = [curves(findings, name, quantity).values() for name in names if name in findings.cells]
    longest = max((len(curve) for found in known for curve in found), default=0)
    of_length = [[curve for curve in found if len(curve) == longest] for found in known]
    return next(filter(None, of_length), [])


def mnist_cnn_curve(index: ResultsIndex) -> Figure:
    """Test accuracy and loss after each epoch.

    Thin lines with open markers: the supplement's curve, read off the figure; thick lines with
    filled markers: ours. Bands: one standard deviation over runs. FC: circles, dashed; Spinal:
    squares, solid.
    """
    figure, axes = new_figure(9.5, 4.6, 1, 2)
    cells = load_cells("curve")
    for panel, quantity in zip(axes[0], LABELS, strict=True):
        published = published_curves(quantity)
        for cell in cells:
            _draw_series(panel, f"{cell.head}, supplement", cell, published[cell.head], False)
        for cell in cells:
            if runs := measured_curves(index, cell, quantity):
                series = DataFrame(runs).rename(columns=lambda place: place + 1)
                label = f"{cell.head}, ours (n = {len(runs)})"
                _draw_series(panel, label, cell, series.agg(["mean", "std"]).T, True)
        panel.set(xlabel="Epoch", ylabel=LABELS[quantity])
        panel.set_xticks([1, 4, 8, 12, 16, 20])
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


def _draw_series(panel: Axes, label: str, cell: Cell, series: DataFrame, ours: bool) -> None:
    colour, marker, line = HEADS[cell.head_kind]
    panel.plot(
        series["mean"],
        color=colour,
        linestyle=line,
        linewidth=2.2 if ours else 1.0,
        marker=marker,
        markersize=6 if ours else 4.5,
        markerfacecolor=colour if ours else "white",
        label=label,
        zorder=4 if ours else 3,
    )
    band = series.dropna()
    low, high = band["mean"] - band["std"], band["mean"] + band["std"]
    panel.fill_between(band.index, low, high, color=colour, alpha=0.18, linewidth=0)
