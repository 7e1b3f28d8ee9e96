"""The supplement's bar chart: best of SpinalNet, and the state of the art of June 2020."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from spinal_repro.results.figures import common
from spinal_repro.results.figures.common import BLACK
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.rules.common import published

BEST: Any = {"facecolor": common.VERMILION, "edgecolor": BLACK, "linewidth": 0.6}
REFERENCE: Any = {"facecolor": common.SKY, "hatch": "///", "edgecolor": BLACK, "linewidth": 0.6}
STAR: Any = {"linestyle": "", "marker": "*", "markersize": 13, "color": BLACK}


def summary(index: ResultsIndex) -> Figure | None:
    """Error rates of the supplement's bar chart, and our best means (stars).

    Plain bars: the published best of SpinalNet; hatched bars: the state of the art that the paper
    names. Stars are our best means over the networks that were run, not always the network of the
    bar; open stars: a reduced budget or a changed recipe. The labels are accuracies.
    """
    rows = [c for c in index.cells.values() if c.reference is not None and published(c)]
    if not rows:
        return None
    figure, axes = common.new_figure(9.5, 1.5 + 1.6 * common.ROW * len(rows))
    panel = axes[0][0]
    for row, cell in enumerate(rows):
        best, reference = published(cell), cell.reference and cell.reference.value
        for value, style, shift in ((best, BEST, -0.2), (reference, REFERENCE, 0.2)):
            assert isinstance(value, float)
            panel.barh(row + shift, 100 - value, 0.38, **style)
            _label(panel, 100 - value, row + shift, f"{value:.2f}", distance=4)
        ran = [runs[0] for name in cell.best_of if (runs := index.runs(name))]
        ours = max(ran, key=lambda r: (not r.differences, r.mean or 0.0), default=None)
        if ours is not None and ours.mean is not None:
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
