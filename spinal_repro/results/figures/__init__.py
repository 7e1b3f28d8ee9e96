"""Figures of the report as files; the same results give the same bytes.

Nothing here touches matplotlib's global state. Importing this needs the extra ``report``.
"""

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

from spinal_repro.io import write_atomic
from spinal_repro.results.figures import cells, supplement
from spinal_repro.results.findings import ResultsIndex

PLOTS = {  # titles by function, which returns None where there is nothing to draw
    supplement.mnist_cnn_curve: "MNIST CNN, epoch by epoch",
    cells.against_paper: "Ours against the paper",
    cells.regression: "Regression, Table I",
    cells.regression_differences: "Regression, seed by seed",
    cells.paired_differences: "Differences of accuracy, seed by seed",
    cells.accuracy_by_parameters: "Accuracy against the size of the head",
    supplement.summary: "Best of SpinalNet against the state of the art of June 2020",
}
STYLE: dict[str, Any] = {
    "svg.hashsalt": "spinal_repro",
    "text.parse_math": False,  # dollar signs in titles are text
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


class Drawn(NamedTuple):
    """A figure in both formats; its name is the stem of its files."""

    name: str
    title: str
    caption: str
    svg: bytes
    png: bytes


def draw(index: ResultsIndex) -> Iterator[Drawn]:
    """Draw every figure that has results; the docstring of its function is its caption."""
    settings: Any = {**matplotlib.rcParamsDefault, **STYLE}
    with matplotlib.rc_context(settings):
        for plot, title in PLOTS.items():
            figure = plot(index)
            if figure is not None:
                figure.draw_without_rendering()
                figure.set_layout_engine("none")  # laid out once, not again for each format
                svg = _bytes(figure, "svg", {"Date": None, "Creator": "spinal_repro"})
                png = _bytes(figure, "png", {"Software": None})
                caption = " ".join((plot.__doc__ or "").split())
                yield Drawn(plot.__name__, title, caption, svg, png)


def _bytes(figure: Figure, form: str, metadata: Mapping[str, str | None]) -> bytes:
    out = BytesIO()
    figure.savefig(out, format=form, dpi=200, metadata=metadata)
    return out.getvalue()


def write(figures: Sequence[Drawn], folder: Path) -> None:
    """Write figures as SVG and PNG; makes the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        write_atomic(folder / f"{figure.name}.svg", figure.svg)
        write_atomic(folder / f"{figure.name}.png", figure.png)
