"""The MNIST CNN, epoch by epoch: the supplement's own curves, and those of our runs."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spinal_repro.paper.cells import Cell, curve, load_cells
from spinal_repro.records import statistics
from spinal_repro.results.figures.common import HEADS, new_figure, plot
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.epochs import curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PUBLISHED_AS = {"accuracy": ("mean accuracy %", "SD of accuracy"), "loss": ("mean loss", None)}
LABELS = {"accuracy": "Test accuracy, %", "loss": "Test loss"}


@dataclass
class Series:
    """Mean and standard deviation by epoch, from 1; an epoch may have no standard deviation."""

    mean: dict[int, float] = field(default_factory=dict)
    sd: dict[int, float] = field(default_factory=dict)
    n: int | None = None  # runs; None where it was not published


def published_curves(quantity: str) -> dict[str, Series]:
    """Load the supplement's curves of ``accuracy`` (percent) or ``loss``, by head."""
    mean, sd = PUBLISHED_AS[quantity]
    heads = {cell.name: cell.head for cell in load_cells("curve")}
    found = {head: Series() for head in heads.values()}
    for row in curve():
        series = found[heads[row["cell"]]]
        if row["quantity"] == mean:
            series.mean[row["epoch"]] = row["value"]
        elif row["quantity"] == sd:
            series.sd[row["epoch"]] = row["value"]
    return found


def measured_curve(findings: ResultsIndex, cell: Cell, quantity: str) -> Series | None:
    """Our curve of a cell over seeds; of runs of several lengths the longest, None without runs."""
    names = (cell.name, cell.shorter or cell.name)
    known = [curves(findings, name, quantity) for name in names if name in findings.cells]
    longest = max((len(c) for by_seed in known for c in by_seed.values()), default=0)
    if not longest:
        return None
    of_length = [[c for c in by_seed.values() if len(c) == longest] for by_seed in known]
    runs = next(filter(None, of_length))
    series = Series(n=len(runs))
    for epoch, values in enumerate(zip(*runs, strict=True), 1):
        series.mean[epoch] = statistics.mean(values)
        if len(values) > 1:
            series.sd[epoch] = statistics.deviation(values)
    return series


@plot("MNIST CNN, epoch by epoch")
def mnist_cnn_curve(index: ResultsIndex) -> "Figure | None":
    """Test accuracy and loss after each epoch.

    Thin lines with open markers: the supplement's curve, read off the figure; thick lines with
    filled markers: ours. Bands: one standard deviation over runs. FC: circles, dashed; Spinal:
    squares, solid.
    """
    figure, axes = new_figure(9.5, 4.6, 1, 2)
    cells = load_cells("curve")
    for panel, (quantity, label) in zip(axes[0], LABELS.items(), strict=True):
        published = published_curves(quantity)
        for cell in cells:
            _draw_series(panel, f"{cell.head}, supplement", cell, published[cell.head], False)
        for cell in cells:
            if series := measured_curve(index, cell, quantity):
                _draw_series(panel, f"{cell.head}, ours (n = {series.n})", cell, series, True)
        panel.set(xlabel="Epoch", ylabel=label)
        panel.set_xticks([1, 4, 8, 12, 16, 20])
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


def _draw_series(panel: "Axes", label: str, cell: Cell, series: Series, ours: bool) -> None:
    colour, marker, line = HEADS[cell.head_kind]
    panel.plot(
        list(series.mean),
        list(series.mean.values()),
        color=colour,
        linestyle=line,
        linewidth=2.2 if ours else 1.0,
        marker=marker,
        markersize=6 if ours else 4.5,
        markerfacecolor=colour if ours else "white",
        label=label,
        zorder=4 if ours else 3,
    )
    known = [epoch for epoch in series.mean if epoch in series.sd]
    low = [series.mean[epoch] - series.sd[epoch] for epoch in known]
    high = [series.mean[epoch] + series.sd[epoch] for epoch in known]
    panel.fill_between(known, low, high, color=colour, alpha=0.18, linewidth=0)
