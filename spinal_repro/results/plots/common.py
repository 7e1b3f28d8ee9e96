"""Shared by the plots: colours, markers, points with intervals, rows and legends.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; every distinction is
also one of marker, line style, filling or hatching.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from spinal_repro.io import printable
from spinal_repro.results.findings import ResultsIndex

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, SKY, BLUE, VERMILION, GREY = "#000000", "#56B4E9", "#0072B2", "#D55E00", "#777777"
HEADS = {  # colour, marker, line style
    "fc": (BLUE, "o", "--"),
    "spinal": (VERMILION, "s", "-"),
    "other": (BLACK, "^", ":"),
}
LABELS = {"fc": "FC head", "spinal": "Spinal head", "other": "other head"}
PUBLISHED: Any = {"marker": "D", "color": BLACK, "markerfacecolor": "none"}
ROW = 0.34  # inches a row of a list takes


class Plot(NamedTuple):
    """A kind of figure: ``draw`` returns None where there are no results to draw."""

    name: str  # stem of its files
    title: str
    caption: str
    draw: Callable[[ResultsIndex], "Figure | None"]


def plot(title: str) -> Callable[[Callable[[ResultsIndex], "Figure | None"]], Plot]:
    """Make a plot of a function: its docstring is the caption of the figure."""

    def make(draw: Callable[[ResultsIndex], "Figure | None"]) -> Plot:
        caption = " ".join((inspect.getdoc(draw) or "").split())
        return Plot(draw.__name__, title, caption, draw)

    return make


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> Any:
    """Make a figure of some inches, and its axes ``[rows, columns]``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def draw_point(
    panel: "Axes",
    value: float,
    interval: tuple[float, float],
    place: float,
    *,
    kind: str,
    filled: bool,
    vertical: bool = False,
) -> None:
    """Draw a value with its interval, in the colour and marker of a head.

    Args:
        place: On the other axis.
        kind: A key of `HEADS`.
        filled: False for a reduced budget or a changed recipe.
        vertical: Whether values are along y.
    """
    error = [[value - interval[0]], [interval[1] - value]]
    colour, marker, _ = HEADS[kind]
    panel.errorbar(
        *((place, value) if vertical else (value, place)),
        **{"yerr" if vertical else "xerr": error},  # type: ignore[arg-type]
        color=colour,
        marker=marker,
        markersize=7,
        capsize=3,
        markerfacecolor=colour if filled else "white",
    )


def name_rows(panel: "Axes", names: Sequence[str]) -> None:
    """Name the rows of a list, the first on top."""
    panel.set_yticks(range(len(names)), [printable(name) for name in names])
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def head_legend(figure: "Figure", kinds: Iterable[str], published: bool = False) -> None:
    """Draw a legend of heads, and of published numbers, below a figure."""
    from matplotlib.lines import Line2D

    entries: dict[str, Mapping[str, Any]] = {
        LABELS[kind]: {"color": colour, "marker": marker}
        for kind, (colour, marker, _) in HEADS.items()
        if kind in set(kinds)
    }
    if published:
        entries["published"] = PUBLISHED
    handles = [Line2D([], [], linestyle="", label=k, **s) for k, s in entries.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
