"""What the plots share: colours, markers, rows and legends.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; every distinction is
also one of marker, line style, filling or hatching.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spinal_repro.io import printable
from spinal_repro.results.findings import ResultsIndex

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from spinal_repro.paper.cells import Cell

BLACK, ORANGE, SKY, BLUE, VERMILION = "#000000", "#E69F00", "#56B4E9", "#0072B2", "#D55E00"
GREY = "#777777"
HEADS = {  # colour, marker, line style
    "FC": (BLUE, "o", "--"),
    "Spinal": (VERMILION, "s", "-"),
    "other": (BLACK, "^", ":"),
}
PERCENT = "%"
ROW = 0.34  # inches a row of a list takes


@dataclass(frozen=True)
class Plot:
    """A kind of figure.

    Attributes:
        name: Stem of its files.
        title: Heading.
        caption: What is shown, for those who see it and those who do not.
        draw: Draws it, or gives None where there is nothing to draw.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[ResultsIndex], "Figure | None"]


def kind(cell: "Cell") -> str:
    """Whether a cell's head is ``FC``, ``Spinal`` or another one."""
    return {"fc": "FC", "spinal": "Spinal"}.get(cell.head_kind, "other")


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> Any:
    """A figure and its axes, ``[rows, columns]``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def name_rows(panel: "Axes", names: Sequence[str]) -> None:
    """One named row each, the first on top."""
    panel.set_yticks(range(len(names)), [printable(name) for name in names])
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def head_legend(
    figure: "Figure", kinds: set[str], more: dict[str, tuple[str, str]] | None = None
) -> None:
    """A legend below a figure that tells the heads apart.

    Args:
        figure: The figure.
        kinds: What `kind` gives.
        more: Marker and colour of other entries, drawn open.
    """
    from matplotlib.lines import Line2D

    names = {"FC": "FC head", "Spinal": "Spinal head", "other": "other head"}
    entries = {names[k]: (HEADS[k][1], HEADS[k][0]) for k in HEADS if k in kinds}
    handles = [
        Line2D([], [], linestyle="", marker=m, color=c, label=label)
        for label, (m, c) in entries.items()
    ]
    handles += [
        Line2D([], [], linestyle="", marker=m, color=c, markerfacecolor="none", label=label)
        for label, (m, c) in (more or {}).items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
