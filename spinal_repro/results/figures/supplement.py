"""Figures of the supplement with our runs: the MNIST CNN epoch by epoch, and the bar chart."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame, read_csv

from spinal_repro.config.compose import config_dir
from spinal_repro.paper.cells import Cell, load_cells
from spinal_repro.results.figures import common
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import PAPER
from spinal_repro.results.rules.epochs import Curve, curves

LABELS = {"accuracy": "Test accuracy, %", "loss": "Test loss"}
PUBLISHED_AS = {
    "accuracy": {"mean accuracy %": "mean", "SD of accuracy": "std"},
    "loss": {"mean loss": "mean"},
}
LEAST = 0.01  # error in percent that the axis of the summary begins with
OURS: Any = {"linewidth": 2.2, "markersize": 6, "zorder": 4}
PRINTED: Any = {"linewidth": 1.0, "markersize": 4.5, "markerfacecolor": "white", "zorder": 3}
REFERENCE: Any = {"marker": "o", "color": common.SKY, "linestyle": ""}
STAR: Any = {"marker": "*", "markersize": 11, "color": common.VERMILION, "linestyle": ""}


def published_curves(quantity: str) -> dict[str, DataFrame]:
    """Load the supplement's curves by head: ``mean`` and, where published, ``std`` by epoch."""
    path = config_dir() / "paper/curve/mnist_cnn_curve.csv"  # digitised from the figure
    rows = read_csv(path, converters={"value": float})
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
    figure, axes = common.new_figure(5.4, 2, gridspec_kw={"height_ratios": (3, 2)})
    cells = load_cells("curve")
    for panel, quantity in zip(axes[:, 0], LABELS, strict=True):
        printed = published_curves(quantity)
        for cell in cells:
            _draw_series(panel, f"{cell.head}, supplement", cell, printed[cell.head], False)
        for cell in cells:
            if runs := measured_curves(index, cell, quantity):
                series = DataFrame(runs).rename(columns=lambda place: place + 1)
                label = f"{cell.head}, ours (n = {len(runs)})"
                _draw_series(panel, label, cell, series.agg(["mean", "std"]).T, True)
        panel.set_ylabel(LABELS[quantity])
        panel.set_xticks([1, 4, 8, 12, 16, 20])
    panel.set_xlabel("Epoch")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


def _draw_series(panel: Axes, label: str, cell: Cell, series: DataFrame, ours: bool) -> None:
    colour, marker, line = common.HEADS[cell.head_kind]
    style: Any = {"color": colour, "linestyle": line, "marker": marker, "label": label}
    panel.plot(series["mean"], **style, **(OURS if ours else PRINTED))
    band = series.dropna()
    low, high = band["mean"] - band["std"], band["mean"] + band["std"]
    panel.fill_between(band.index, low, high, color=colour, alpha=0.18, linewidth=0)


def summary(index: ResultsIndex) -> Figure | None:
    """Error of the best SpinalNet and of the state of the art that the paper names (bar chart).

    The axis is logarithmic; the numbers on the right are the two accuracies in percent. Stars:
    our best mean, where a network was run as published; it is named on the left, and not always
    the network of the published number.
    """
    rows = [c for c in index.cells.values() if c.reference is not None and c.result.value]
    if not rows:
        return None
    rows.sort(key=lambda cell: -(cell.result.value or 0))
    ran = [[r for n in c.best_of for r in index.runs(n, PAPER) if not r.differences] for c in rows]
    ours = [max(results, key=lambda result: result.mean, default=None) for results in ran]
    names = [
        cell.dataset + (f"\nours: {run.cell.backbone} {run.mean:.2f}" if run else "")
        for cell, run in zip(rows, ours, strict=True)
    ]
    figure, axes = common.new_figure(common.height(names) + 1.2)
    panel = axes[0][0]
    for place, cell, run in zip(common.name_rows(panel, names), rows, ours, strict=True):
        best, reference = (said.value or 0.0 for said in (cell.result, cell.reference) if said)
        errors = _error(best), _error(reference)
        panel.plot(errors, [place, place], color=common.GREY, linewidth=1)
        panel.plot(errors[0], place, **common.PUBLISHED)
        panel.plot(errors[1], place, **REFERENCE)
        common.note(panel, place, f"{best:.2f} / {reference:.2f}")
        if run is not None:
            panel.plot(_error(run.mean), place, **STAR)
    panel.set(xscale="log", xlabel="Error, %")
    panel.set_xlim(left=LEAST)
    panel.xaxis.set_major_formatter("{x:g}")
    styles: Any = {"SpinalNet": common.PUBLISHED, "state of the art": REFERENCE, "ours": STAR}
    common.legend(figure, (), **styles)
    return figure


def _error(accuracy: float) -> float:
    """Return the error in percent, as a logarithmic axis can show it."""
    return max(100 - accuracy, LEAST)
