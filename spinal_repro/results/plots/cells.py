"""Cell by cell: ours against the paper, Spinal against FC, accuracy against size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spinal_repro.io import printable
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import PAPER, ResultGroup
from spinal_repro.results.pairs import Pair
from spinal_repro.results.plots.common import (
    BLACK,
    GREY,
    HEADS,
    PERCENT,
    ROW,
    VERMILION,
    head_legend,
    kind,
    name_rows,
    new_figure,
)
from spinal_repro.results.rules.common import published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ELSEWHERE = ("curve", "summary")  # tables with figures of their own


def _run_results(findings: ResultsIndex, unit: str) -> list["ResultGroup"]:
    """The runs of each cell and protocol that changed least, of cells with a published number."""
    found: dict[tuple[str, str], ResultGroup] = {}
    for name in findings.cells:
        for result in findings.runs(name):
            known = result.published_value is not None and not result.cell.best_of
            if result.unit == unit and known and not findings.is_subset_of_other_cell(result):
                found.setdefault((name, result.protocol), result)
    return list(found.values())


def against_paper(findings: ResultsIndex) -> "Figure | None":
    """Difference of our mean to the published number, cell by cell."""
    results = _run_results(findings, PERCENT)
    if not results:
        return None
    figure, axes = new_figure(9.5, 1.3 + ROW * len(results))
    panel = axes[0][0]
    for row, result in enumerate(results):
        difference = result.difference
        assert difference is not None and result.mean is not None
        bounds = result.interval
        low, high = bounds if bounds is not None else (result.mean, result.mean)
        colour, marker, _ = HEADS[kind(result.cell)]
        panel.errorbar(
            difference,
            row,
            xerr=[[result.mean - low], [high - result.mean]],
            color=colour,
            marker=marker,
            markersize=7,
            capsize=3,
            markerfacecolor="white" if result.differences else colour,
        )
        text = f"{result.published_value:.2f} → {result.mean:.2f}, n = {result.n}, {result.verdict}"
        panel.annotate(
            text,
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            annotation_clip=False,
        )
    panel.axvline(0, color=BLACK, linewidth=1)
    several = {result.setting for result in results} != {PAPER}
    name_rows(panel, [r.cell.title + (f" ({r.setting})" if several else "") for r in results])
    panel.set_xlabel("Ours minus published, percentage points")
    head_legend(figure, {kind(result.cell) for result in results})
    return figure


def regression(findings: ResultsIndex) -> "Figure | None":
    """The regression's numbers, published and ours, cell by cell."""
    results = _run_results(findings, "1e-3")
    if not results:
        return None
    from matplotlib.ticker import LogFormatter

    figure, axes = new_figure(9.5, 1.6 + ROW * len(results))
    panel = axes[0][0]
    for row, result in enumerate(results):
        assert result.mean is not None
        low, high = result.interval or (result.mean, result.mean)
        colour, marker, _ = HEADS[kind(result.cell)]
        panel.errorbar(
            result.mean,
            row,
            xerr=[[result.mean - low], [high - result.mean]],
            color=colour,
            marker=marker,
            capsize=3,
            markerfacecolor="white" if result.differences else colour,
        )
        panel.plot(result.published_value, row, marker="D", color=BLACK, markerfacecolor="none")
    panel.set_xscale("log")
    for axis in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
        axis(LogFormatter(minor_thresholds=(2, 0.5)))
    name_rows(panel, [f"{result.cell.title}, n = {result.n}" for result in results])
    panel.set_xlabel("Lowest mean square error of a last mini-batch, in 1e-3")
    head_legend(figure, {kind(result.cell) for result in results}, {"published": ("D", BLACK)})
    return figure


def accuracy_by_parameters(findings: ResultsIndex) -> "Figure | None":
    """Accuracy against the size of the head, one panel a data set and backbone."""
    panels: dict[tuple[str, str], list[ResultGroup]] = {}
    for result in _first_results(findings):
        if result.cell.name in findings.counts:
            panels.setdefault((result.cell.dataset, result.cell.backbone), []).append(result)
    if not panels:
        return None
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = new_figure(max(5.5, 3.6 * columns), 0.9 + 3.2 * lines, lines, columns)
    for place, (title, results) in zip(axes.flat, panels.items(), strict=False):
        _parameters_panel(place, results, findings)
        place.set_title(printable(", ".join(title)))
        place.set_xlabel("Parameters of the head")
    for place in list(axes.flat)[len(panels) :]:
        place.set_visible(False)
    figure.supylabel("Test accuracy, %")
    kinds = {kind(result.cell) for results in panels.values() for result in results}
    head_legend(figure, kinds, {"published": ("D", BLACK)})
    return figure


def _first_results(findings: ResultsIndex) -> list["ResultGroup"]:
    """The runs of each cell that changed least, of cells that classify."""
    found = [
        next((r for r in findings.runs(name) if not findings.is_subset_of_other_cell(r)), None)
        for name, cell in findings.cells.items()
        if cell.table not in ELSEWHERE
    ]
    return [result for result in found if result is not None and result.unit == PERCENT]


def _parameters_panel(
    panel: "Axes", results: Sequence["ResultGroup"], findings: ResultsIndex
) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    sizes = []
    for result in results:
        assert result.mean is not None
        x = findings.counts[result.cell.name][0]["head_parameters"]
        sizes.append(x)
        low, high = result.interval or (result.mean, result.mean)
        colour, marker, _ = HEADS[kind(result.cell)]
        panel.errorbar(
            x,
            result.mean,
            yerr=[[result.mean - low], [high - result.mean]],
            color=colour,
            marker=marker,
            markersize=7,
            capsize=3,
            markerfacecolor="white" if result.differences else colour,
        )
        value = published(result.cell)
        if value is not None:
            panel.plot(x, value, marker="D", markersize=7, color=BLACK, markerfacecolor="none")
    panel.set_xscale("log")
    room = max(max(sizes) / min(sizes), 1.05) ** 0.6  # labels never nearer than half the width
    panel.set_xlim(min(sizes) / room, max(sizes) * room)
    panel.set_xticks(_apart(sizes))
    panel.tick_params(axis="x", which="minor", length=0)
    if len(set(sizes)) > 2:
        panel.tick_params(axis="x", rotation=30)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.margins(y=0.25)


def _apart(sizes: Sequence[float]) -> list[float]:
    """Some of the sizes, so far apart on a logarithmic axis that their labels do not touch."""
    least = max(1.02, (max(sizes) / min(sizes)) ** 0.12)
    ticks: list[float] = []
    for size in sorted(set(sizes)):
        if not ticks or size >= ticks[-1] * least:
            ticks.append(size)
    return ticks


def paired_differences(findings: ResultsIndex) -> "Figure | None":
    """Spinal minus FC, seed by seed, cell by cell."""
    pairs = [
        pair
        for name in findings.cells
        for pair in findings.compared(name)
        if not findings.is_subset_of_other_cell(pair.spinal)
    ]
    by_unit = {
        "Difference from the FC head, percentage points (right of 0: better than it)": [
            p for p in pairs if p.spinal.cell.regression is None
        ],
        "Spinal minus FC, mean square error in 1e-3 (left of 0: Spinal better)": [
            p for p in pairs if p.spinal.cell.regression is not None
        ],
    }
    panels = {label: found for label, found in by_unit.items() if found}
    if not panels:
        return None
    heights = [len(found) + 2.5 for found in panels.values()]
    figure, axes = new_figure(
        9.5, 0.4 + ROW * sum(heights), len(panels), 1, gridspec_kw={"height_ratios": heights}
    )
    for panel, (label, found) in zip(axes[:, 0], panels.items(), strict=True):
        _differences_panel(panel, found)
        panel.set_xlabel(label)
    return figure


def _differences_panel(panel: "Axes", found: Sequence["Pair"]) -> None:
    for row, pair in enumerate(found):
        compared = pair.comparison
        panel.plot(
            compared.differences,
            [row] * len(compared.differences),
            linestyle="",
            marker="|",
            markersize=11,
            color=GREY,
        )
        low, high = compared.interval or (compared.mean, compared.mean)
        panel.errorbar(
            compared.mean,
            row,
            xerr=[[compared.mean - low], [high - compared.mean]],
            color=VERMILION,
            marker="s",
            markersize=6,
            capsize=4,
            markerfacecolor="white" if pair.spinal.differences else VERMILION,
        )
    panel.axvline(0, color=BLACK, linewidth=1)
    several = {pair.spinal.setting for pair in found} != {PAPER}
    names = [f"{pair.spinal.cell.title}, n = {len(pair.seeds)}" for pair in found]
    if several:
        names = [f"{name} ({pair.spinal.setting})" for name, pair in zip(names, found, strict=True)]
    name_rows(panel, names)
