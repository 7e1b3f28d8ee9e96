"""Shared by the plots: colours, markers, panels, rows with points and intervals, legends.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; every distinction is
also one of marker, line style or filling. Figures are narrow, to be read on a phone.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

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
LABELS = {"fc": "FC", "spinal": "Spinal", "other": "other head"}
PUBLISHED: Any = {"marker": "D", "color": BLACK, "markerfacecolor": "none", "linestyle": ""}
SEED: Any = {"marker": "|", "color": GREY, "markersize": 9, "linestyle": ""}
DECIDED: Any = {"marker": "s", "color": BLACK}
UNDECIDED: Any = {**DECIDED, "markerfacecolor": "white"}
WIDTH, LINE = 4.5, 0.16  # inches: of a figure, and those that a line of text takes
MANY = 100  # seeds of a row
WRAP = 26  # characters in a line of the name of a row


class Row(NamedTuple):
    """A mean of ``n`` values with its interval, and what else is drawn on its row of a list."""

    of: ResultGroup  # gives the name, colour and marker
    value: float
    interval: tuple[float, float] | None
    n: int
    published: float | None = None
    seeds: Sequence[float] = ()
    decided: bool = True

    @property
    def title(self) -> str:
        """The title of the cell without data set and network."""
        return printable(self.of.cell.title.split(", ", 2)[-1])

    @property
    def name(self) -> str:
        return textwrap.fill(self.title, WRAP)

    @property
    def panel(self) -> str:
        """The title of the panel: data set, network and how the cell was run."""
        cell, more = self.of.cell, f", {self.of.cell.backbone}, protocol {self.of.setting}"
        return cell.dataset + ("" if cell.regression else more)


def new_figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> Any:
    """Make a figure some inches high, and its axes ``[rows, columns]``."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def stacked(titles: Iterable[str], heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels some inches high, one below the other."""
    height = sum(heights) + 0.65 * len(heights) + 0.5
    figure, axes = new_figure(height, len(heights), gridspec_kw={"height_ratios": heights})
    for panel, title in zip(axes[:, 0], titles, strict=True):
        panel.set_title(" ")  # keeps the line free, which begins at the edge of the figure
        write(panel, (0.0, 1.0), title, ("figure fraction", "axes fraction"), weight="bold")
    return figure, list(axes[:, 0])


def write(
    panel: Axes, at: tuple[float, float], text: str, coordinates: tuple[str, str], **style: Any
) -> None:
    """Write text from a point on to the right, just above it; the layout leaves no room for it."""
    style |= {"xytext": (3, 7), "textcoords": "offset points", "annotation_clip": False}
    panel.annotate(printable(text), at, xycoords=coordinates, **style).set_in_layout(False)


def draw_point(panel: Axes, row: Row, place: float, vertical: bool = False) -> None:
    """Draw a mean and its interval (along y if vertical) at a place on the other axis."""
    low, high = row.interval or (row.value, row.value)
    colour, marker, _ = HEADS[row.of.cell.head_kind]
    style: Any = {"color": colour, "marker": marker, "markersize": 6, "capsize": 3}
    style["markerfacecolor"] = colour if row.decided else "white"
    style["yerr" if vertical else "xerr"] = [[row.value - low], [high - row.value]]
    panel.errorbar(*((place, row.value) if vertical else (row.value, place)), **style)
    if row.published is not None:
        panel.plot(*((place, row.published) if vertical else (row.published, place)), **PUBLISHED)


def name_rows(panel: Axes, names: Sequence[str]) -> list[float]:
    """Name the rows of a list, the first on top, and return where they are."""
    ends = list(accumulate((1.2 + name.count("\n") for name in names), initial=0.2))
    places = [(start + end) / 2 for start, end in pairwise(ends)]
    panel.set_yticks(places, names)
    panel.set_ylim(ends[-1] + 0.2, 0)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)
    return places


def height(names: Iterable[str]) -> float:
    """Inches that rows with these names take."""
    return LINE * (0.4 + sum(1.2 + name.count("\n") for name in names))


def note(panel: Axes, place: float, text: str) -> None:
    """Write to the right of a row of a list."""
    panel.text(1.02, place, text, transform=panel.get_yaxis_transform(), va="center")


def lists(panels: Mapping[tuple[str, str], Sequence[Row]], paper: bool = False) -> Figure | None:
    """Draw lists by their title and the label of their axis."""
    if not panels:
        return None
    heights = [height(row.name for row in rows) for rows in panels.values()]
    figure, axes = stacked((title for title, _ in panels), heights)
    for panel, ((_, label), rows) in zip(axes, panels.items(), strict=True):
        places = name_rows(panel, [row.name for row in rows])
        panel.set_xlabel(printable(label))
        for place, row, name in zip(places, rows, panel.get_yticklabels(), strict=True):
            many = len(row.seeds) > MANY  # as pixels, since SVG has 100 bytes for each tick
            panel.plot(row.seeds, [place] * len(row.seeds), rasterized=many, **SEED)
            draw_point(panel, row, place)
            note(panel, place, f"n = {row.n}")
            if row.seeds:
                panel.axvline(0, color=BLACK, linewidth=1)
                name.set_fontweight("bold" if row.decided else "normal")
    legend(figure, [row for rows in panels.values() for row in rows], paper)
    return figure


def legend(figure: Figure, rows: Sequence[Row], paper: bool = False, **more: Any) -> None:
    """Draw a legend below a figure: heads, what else is on the rows, and more styles by label."""
    kinds = {row.of.cell.head_kind for row in rows}
    styles = {LABELS[k]: {"color": HEADS[k][0], "marker": HEADS[k][1]} for k in HEADS if k in kinds}
    if paper:
        styles["paper"] = PUBLISHED
    elif any(row.seeds for row in rows):
        styles |= {"one seed": SEED, "decided": DECIDED, "undecided": UNDECIDED}
    handles = [
        Line2D([], [], label=label, **{"linestyle": "", **style})
        for label, style in (styles | more).items()
    ]
    columns = len(handles) if len(handles) < 5 else 3
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
