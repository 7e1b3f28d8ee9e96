"""The MNIST CNN, epoch by epoch."""

from typing import TYPE_CHECKING

from spinal_repro.paper.cells import load_cells
from spinal_repro.results.curves import Series, measured_curves, published_curves
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.plots.common import HEADS, new_figure, plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@plot("MNIST CNN, epoch by epoch")
def mnist_cnn_curve(index: ResultsIndex) -> "Figure | None":
    """Test accuracy and loss after each epoch.

    Thin lines with open markers: the supplement's curve, read off the figure; thick lines with
    filled markers: ours. Bands: one standard deviation over runs. FC: circles, dashed; Spinal:
    squares, solid.
    """
    figure, axes = new_figure(9.5, 4.6, 1, 2)
    kinds = {cell.head: cell.head_kind for cell in load_cells("curve")}
    labels = {"accuracy": "Test accuracy, %", "loss": "Test loss"}
    for panel, (quantity, label) in zip(axes[0], labels.items(), strict=True):
        for head, series in published_curves(quantity).items():
            _draw_series(panel, f"{head}, supplement", kinds[head], series, ours=False)
        for head, series in measured_curves(index, quantity).items():
            _draw_series(panel, f"{head}, ours", kinds[head], series, ours=True)
        panel.set(xlabel="Epoch", ylabel=label)
        panel.set_xticks([1, 4, 8, 12, 16, 20])
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


def _draw_series(panel: "Axes", name: str, kind: str, series: Series, *, ours: bool) -> None:
    colour, marker, line = HEADS[kind]
    runs = f" (n = {series.n})" if series.n else ""
    panel.plot(
        list(series.mean),
        list(series.mean.values()),
        color=colour,
        linestyle=line,
        linewidth=2.2 if ours else 1.0,
        marker=marker,
        markersize=6 if ours else 4.5,
        markerfacecolor=colour if ours else "white",
        label=f"{name}{runs}",
        zorder=4 if ours else 3,
    )
    known = [epoch for epoch in series.mean if epoch in series.sd]
    low = [series.mean[epoch] - series.sd[epoch] for epoch in known]
    high = [series.mean[epoch] + series.sd[epoch] for epoch in known]
    panel.fill_between(known, low, high, color=colour, alpha=0.18, linewidth=0)
