"""The MNIST CNN, epoch by epoch."""

from typing import TYPE_CHECKING

from spinal_repro.paper.cells import load_cells
from spinal_repro.results.curves import measured_curves, published_curves
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.plots.common import HEADS, kind, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curve(findings: ResultsIndex) -> "Figure | None":
    """Accuracy and loss of the MNIST CNN after each epoch."""
    figure, axes = new_figure(9.5, 4.6, 1, 2)
    kinds = {cell.head: kind(cell) for cell in load_cells("curve")}
    for panel, (quantity, label) in zip(
        axes[0], {"accuracy": "Test accuracy, %", "loss": "Test loss"}.items(), strict=True
    ):
        sources = {
            "supplement": published_curves(quantity),
            "ours": measured_curves(findings, quantity),
        }
        for source, by_head in sources.items():
            for head, series in by_head.items():
                colour, marker, line = HEADS[kinds[head]]
                ours = source == "ours"
                x = list(series.mean)
                runs = f" (n = {series.n})" if series.n else ""
                panel.plot(
                    x,
                    list(series.mean.values()),
                    color=colour,
                    linestyle=line,
                    linewidth=2.2 if ours else 1.0,
                    marker=marker,
                    markersize=6 if ours else 4.5,
                    markerfacecolor=colour if ours else "white",
                    label=f"{head}, {source}{runs}",
                    zorder=4 if ours else 3,
                )
                known = [e for e in x if e in series.sd]
                low = [series.mean[e] - series.sd[e] for e in known]
                high = [series.mean[e] + series.sd[e] for e in known]
                panel.fill_between(known, low, high, color=colour, alpha=0.18, linewidth=0)
        panel.set(xlabel="Epoch", ylabel=label)
        panel.set_xticks([1, 4, 8, 12, 16, 20])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure
