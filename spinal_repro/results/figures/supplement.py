"""Figures of the supplement with our runs: the MNIST CNN epoch by epoch, and the bar chart."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from pandas import DataFrame

from spinal_repro.paper.cells import Cell, curve, load_cells
from spinal_repro.results.figures import common
from spinal_repro.results.figures.common import BLACK
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import published
from spinal_repro.results.rules.epochs import Curve, curves

LABELS = {"accuracy": "Test accuracy, %", "loss": "Test loss"}
PUBLISHED_AS = {
    "accuracy": {"mean accuracy %": "mean", "SD of accuracy": "std"},
    "loss": {"mean loss": "mean"},
}
BEST: Any = {"facecolor": common.VERMILION, "edgecolor": BLACK, "linewidth": 0.6}
REFERENCE: Any = {"facecolor": common.SKY, "hatch": "///", "edgecolor": BLACK, "linewidth": 0.6}
STAR: Any = {"linestyle": "", "marker": "*", "markersize": 13, "color": BLACK}


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
    figure, axes = common.new_figure(9.5, 4.6, 1, 2)
    cells = load_cells("curve")
    for panel, quantity in zip(axes[0], LABELS, strict=True):
        printed = published_curves(quantity)
        for cell in cells:
            _draw_series(panel, f"{cell.head}, supplement", cell, printed[cell.head], False)
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
    colour, marker, line = common.HEADS[cell.head_kind]
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


def summary(index: ResultsIndex) -> Figure | None:
    """Error rates of the supplement's bar chart, and our best means (stars).

    Plain bars: the published best of SpinalNet; hatched bars: the state of the art that the paper
    names. Stars are our best means over the networks that were run, not always the network of the
    bar; open stars: a reduced budget or a changed recipe. The labels are accuracies.
    """
    rows = [c for c in index.cells.values() if c.reference is not None and published(c).value]
    if not rows:
        return None
    figure, axes = common.new_figure(9.5, 1.5 + 1.6 * common.ROW * len(rows))
    panel = axes[0][0]
    for row, cell in enumerate(rows):
        best, reference = published(cell).value, cell.reference and cell.reference.value
        for value, style, shift in ((best, BEST, -0.2), (reference, REFERENCE, 0.2)):
            assert isinstance(value, float)
            panel.barh(row + shift, 100 - value, 0.38, **style)
            _label(panel, 100 - value, row + shift, f"{value:.2f}", distance=4)
        ran = [runs[0] for name in cell.best_of if (runs := index.runs(name))]
        ours = max(ran, key=lambda r: (not r.differences, r.mean), default=None)
        if ours is not None:
            error, face = 100 - ours.mean, "white" if ours.differences else BLACK
            panel.plot(error, row, **STAR, markerfacecolor=face, zorder=5)
            parts = (f"{ours.mean:.2f}", ours.cell.backbone, ours.numerics)
            _label(panel, error, row, ", ".join(filter(None, parts)), distance=10)
    common.name_rows(panel, [cell.dataset for cell in rows])
    panel.margins(x=0.08)
    panel.set_xlim(left=0)
    panel.set_xlabel("Error, % (labels: accuracy, %); shorter is better")
    bars = (("SpinalNet, published best", BEST), ("state of the art, June 2020", REFERENCE))
    star = Line2D([], [], label="ours", **STAR)
    common.legend(figure, [*(Patch(label=label, **style) for label, style in bars), star])
    return figure


def _label(panel: Axes, x: float, y: float, text: str, distance: int) -> None:
    panel.annotate(
        text,
        (x, y),
        xytext=(distance, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )
