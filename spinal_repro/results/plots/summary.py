"""The supplement's bar chart: best of SpinalNet, and the state of the art of June 2020."""

from typing import TYPE_CHECKING, Any

from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import ResultGroup
from spinal_repro.results.plots.common import BLACK, ROW, SKY, VERMILION, name_rows, new_figure
from spinal_repro.results.rules.common import published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from spinal_repro.paper.cells import Cell


def summary(findings: ResultsIndex) -> "Figure | None":
    """Error of the best SpinalNet, of the state of the art of June 2020, and ours."""
    rows = [c for c in findings.cells.values() if c.reference is not None and published(c)]
    if not rows:
        return None
    figure, axes = new_figure(9.5, 1.5 + 1.6 * ROW * len(rows))
    panel = axes[0][0]
    for row, cell in enumerate(rows):
        assert cell.reference is not None and cell.reference.value is not None
        best = published(cell)
        assert best is not None
        bars = [(best, VERMILION, "", -0.2), (cell.reference.value, SKY, "///", 0.2)]
        for value, colour, hatch, shift in bars:
            panel.barh(
                row + shift, 100 - value, 0.38, color=colour, hatch=hatch, edgecolor=BLACK, lw=0.6
            )
            _bar_label(panel, 100 - value, row + shift, f"{value:.2f}")
        ours = _best_of(findings, cell)
        if ours is not None and ours.mean is not None:
            open_: dict[str, Any] = {"markerfacecolor": "white"} if ours.differences else {}
            panel.plot(100 - ours.mean, row, marker="*", markersize=13, color=BLACK, **open_)
            parts = (f"  {ours.mean:.2f}", ours.cell.backbone, ours.numerics)
            _bar_label(panel, 100 - ours.mean, row, ", ".join(filter(None, parts)))
    name_rows(panel, [cell.dataset for cell in rows])
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.margins(x=0.08)
    panel.set_xlim(left=0)
    panel.set_xlabel("Error, % (labels: accuracy, %); shorter is better")
    _summary_legend(figure)
    return figure


def _bar_label(panel: "Axes", x: float, y: float, text: str) -> None:
    panel.annotate(
        text,
        (x, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )


def _summary_legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    style: dict[str, Any] = {"edgecolor": BLACK, "linewidth": 0.6}
    handles = [
        Patch(facecolor=VERMILION, label="SpinalNet, published best", **style),
        Patch(facecolor=SKY, hatch="///", label="state of the art, June 2020", **style),
        Line2D([], [], linestyle="", marker="*", markersize=12, color=BLACK, label="ours"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _best_of(findings: ResultsIndex, cell: "Cell") -> "ResultGroup | None":
    """Our best mean among the cells that a row of the summary stands for; full runs first."""
    found = [runs[0] for name in cell.best_of if (runs := findings.runs(name))]
    return max(found, key=lambda r: (not r.differences, r.mean or 0.0), default=None)
