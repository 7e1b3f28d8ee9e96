"""Shared by the plots: colours, markers, points with intervals, rows and legends.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; every distinction is
also one of marker, line style, filling or hatching.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spinal_repro.io import printable
from spinal_repro.results.outcomes import ResultGroup

BLACK, SKY, BLUE, VERMILION, GREY = "#000000", "#56B4E9", "#0072B2", "#D55E00", "#777777"
HEADS = {  # colour, marker, line style
    "fc": (BLUE, "o", "--"),
    "spinal": (VERMILION, "s", "-"),
    "other": (BLACK, "^", ":"),
}
LABELS = {"fc": "FC head", "spinal": "Spinal head", "other": "other head"}
PUBLISHED: Any = {"marker": "D", "color": BLACK, "markerfacecolor": "none"}
ROW = 0.34  # inches a row of a list takes


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> Any:
    """Make a figure of some inches, and its axes ``[rows, columns]``."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def draw_point(
    panel: Axes,
    of: ResultGroup,
    value: float,
    interval: tuple[float, float] | None,
    place: float,
    shift: float = 0.0,
    vertical: bool = False,
) -> None:
    """Draw a value minus ``shift`` (along y if vertical) at a place on the other axis.

    Colour and marker are those of the head; open markers have a reduced budget or changed recipe.
    """
    low, high = interval or (value, value)
    colour, marker, _ = HEADS[of.cell.head_kind]
    spread: Any = {"yerr" if vertical else "xerr": [[value - low], [high - value]]}
    panel.errorbar(
        *((place, value - shift) if vertical else (value - shift, place)),
        **spread,
        color=colour,
        marker=marker,
        markersize=7,
        capsize=3,
        markerfacecolor="white" if of.differences else colour,
    )


def name_rows(panel: Axes, names: Sequence[str]) -> None:
    """Name the rows of a list, the first on top."""
    panel.set_yticks(range(len(names)), [printable(name) for name in names])
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def legend(figure: Figure, handles: list[Artist]) -> None:
    """Draw a legend below a figure."""
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def head_legend(figure: Figure, of: Iterable[ResultGroup], published: bool = False) -> None:
    """Draw a legend of heads, and of published numbers, below a figure."""
    kinds = {result.cell.head_kind for result in of}
    handles: list[Artist] = [
        Line2D([], [], linestyle="", label=LABELS[kind], color=colour, marker=marker)
        for kind, (colour, marker, _) in HEADS.items()
        if kind in kinds
    ]
    if published:
        handles.append(Line2D([], [], linestyle="", label="published", **PUBLISHED))
    legend(figure, handles)
