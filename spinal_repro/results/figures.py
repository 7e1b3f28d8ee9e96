"""Figures of the report, drawn from findings alone, with the same bytes for the same findings.

What is drawn is in `plots`; this module makes files of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinal_repro.errors import UserError
from spinal_repro.io import write_atomic
from spinal_repro.results.findings import ResultsIndex

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: dict[str, Any] = {
    "svg.hashsalt": "spinal_repro",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 10,
    "text.parse_math": False,  # titles are text, whatever stands between their dollar signs
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
DPI = 150


@dataclass(frozen=True)
class Drawn:
    """A figure as files.

    Attributes:
        name: Stem of its files.
        title: Heading.
        caption: What is shown, for those who see it and those who do not.
        svg: Its bytes as SVG.
        png: Its bytes as PNG.
    """

    name: str
    title: str
    caption: str
    svg: bytes
    png: bytes


def draw(findings: ResultsIndex) -> Iterator[Drawn]:
    """Every figure that there is something to draw for.

    Raises:
        UserError: where matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'spinal-repro[report]'") from error
    from spinal_repro.results.plots import PLOTS

    settings: Any = {**matplotlib.rcParamsDefault, **STYLE}
    with matplotlib.rc_context(settings):
        for plot in PLOTS:
            figure = plot.draw(findings)
            if figure is not None:
                figure.draw_without_rendering()
                figure.set_layout_engine("none")  # laid out once, not again for each format
                yield Drawn(
                    plot.name,
                    plot.title,
                    plot.caption,
                    _bytes(figure, "svg", {"Date": None, "Creator": "spinal_repro"}),
                    _bytes(figure, "png", {"Software": None}),
                )


def write(figures: Sequence[Drawn], folder: Path) -> list[Path]:
    """Write figures as SVG and PNG.

    Args:
        figures: From `draw`.
        folder: Made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for figure in figures:
        for suffix, content in (("svg", figure.svg), ("png", figure.png)):
            path = folder / f"{figure.name}.{suffix}"
            write_atomic(path, content)
            written.append(path)
    return written


def _bytes(figure: "Figure", form: str, metadata: Mapping[str, str | None]) -> bytes:
    out = BytesIO()
    figure.savefig(out, format=form, dpi=DPI, metadata=metadata, bbox_inches="tight")
    return out.getvalue()
