"""What the figures show. Nothing here touches matplotlib's global state.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; every distinction is
also one of marker, line style, filling or hatching.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spinal_repro.results.curves import measured_curves, published_curves
from spinal_repro.results.findings import Findings
from spinal_repro.results.rules.common import published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from spinal_repro.paper import Cell
    from spinal_repro.results.cells import CellResult
    from spinal_repro.results.pairs import Pair

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
    draw: Callable[[Findings], "Figure | None"]


def kind(cell: "Cell") -> str:
    """Whether a cell's head is ``FC``, ``Spinal`` or another one."""
    if cell.head.startswith("Spinal") or "SpinalNet" in cell.head:
        return "Spinal"
    return "FC" if cell.head.startswith(("FC", "FF", "Linear")) else "other"


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> Any:
    """A figure and its axes, ``[rows, columns]``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def curve(findings: Findings) -> "Figure | None":
    """Accuracy and loss of the MNIST CNN after each epoch."""
    figure, axes = _figure(9.5, 4.6, 1, 2)
    for panel, (quantity, label) in zip(
        axes[0], {"accuracy": "Test accuracy, %", "loss": "Test loss"}.items(), strict=True
    ):
        sources = {
            "supplement": published_curves(quantity),
            "ours": measured_curves(findings, quantity),
        }
        for source, by_head in sources.items():
            for head, series in by_head.items():
                colour, marker, line = HEADS["Spinal" if head.startswith("Spinal") else "FC"]
                ours = source == "ours"
                x = list(series.mean)
                runs = f" (n = {series.n})" if series.n else ""
                panel.plot(
                    x,
                    list(series.mean.values()),
                    color=colour,
                    linestyle=line,
                    linewidth=2.2 if ours else 1.0,
                    marker=marker,
                    markersize=6 if ours else 4.5,
                    markerfacecolor=colour if ours else "white",
                    label=f"{head}, {source}{runs}",
                    zorder=4 if ours else 3,
                )
                known = [e for e in x if e in series.sd]
                low = [series.mean[e] - series.sd[e] for e in known]
                high = [series.mean[e] + series.sd[e] for e in known]
                panel.fill_between(known, low, high, color=colour, alpha=0.18, linewidth=0)
        panel.set(xlabel="Epoch", ylabel=label)
        panel.set_xticks([1, 4, 8, 12, 16, 20])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure  # type: ignore[no-any-return]


def _run_results(findings: Findings, unit: str) -> list["CellResult"]:
    """The runs of each cell and protocol that changed least, of cells with a published number."""
    found = {}
    for name in findings.cells:
        for result in findings.runs(name):
            if result.unit == unit and result.published_value is not None:
                found.setdefault((name, result.protocol), result)
    return list(found.values())


def against_paper(findings: Findings) -> "Figure | None":
    """Difference of our mean to the published number, cell by cell."""
    results = _run_results(findings, PERCENT)
    if not results:
        return None
    figure, axes = _figure(9.5, 1.3 + ROW * len(results))
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
            markerfacecolor="white" if result.marks else colour,
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
    several = len({result.protocol for result in results}) > 1
    _rows(panel, [r.cell.title + (f" ({r.protocol})" if several else "") for r in results])
    panel.set_xlabel("Ours minus published, percentage points")
    _head_legend(figure, {kind(result.cell) for result in results})
    return figure  # type: ignore[no-any-return]


def regression(findings: Findings) -> "Figure | None":
    """The regression's numbers, published and ours, cell by cell."""
    results = _run_results(findings, "1e-3")
    if not results:
        return None
    figure, axes = _figure(9.5, 1.6 + ROW * len(results))
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
            markerfacecolor="white" if result.marks else colour,
        )
        panel.plot(result.published_value, row, marker="D", color=BLACK, markerfacecolor="none")
    panel.set_xscale("log")
    _rows(panel, [f"{result.cell.title}, n = {result.n}" for result in results])
    panel.set_xlabel("Lowest mean square error of a last mini-batch, in 1e-3")
    _head_legend(figure, {kind(result.cell) for result in results}, {"published": ("D", BLACK)})
    return figure  # type: ignore[no-any-return]


def _rows(panel: "Axes", names: Sequence[str]) -> None:
    """One named row each, the first on top."""
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def _head_legend(
    figure: "Figure", kinds: set[str], more: dict[str, tuple[str, str]] | None = None
) -> None:
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


def accuracy_by_parameters(findings: Findings) -> "Figure | None":
    """Accuracy against the size of the head, one panel a data set and backbone."""
    panels: dict[tuple[str, str], list[CellResult]] = {}
    for result in _first_results(findings):
        if result.cell.name in findings.counts:
            panels.setdefault((result.cell.dataset, result.cell.backbone), []).append(result)
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = _figure(max(5.5, 3.6 * columns), 0.7 + 3.1 * rows, rows, columns)
    for place, (title, results) in zip(axes.flat, panels.items(), strict=False):
        _parameters_panel(place, results, findings)
        place.set_title(", ".join(title))
    for place in list(axes.flat)[len(panels) :]:
        place.set_visible(False)
    figure.supxlabel("Parameters of the head")
    figure.supylabel("Test accuracy, %")
    kinds = {kind(result.cell) for results in panels.values() for result in results}
    _head_legend(figure, kinds, {"published": ("D", BLACK)})
    return figure  # type: ignore[no-any-return]


def _first_results(findings: Findings) -> list["CellResult"]:
    """The runs of each cell that changed least, of cells that classify."""
    found = [findings.runs(name) for name in findings.cells]
    return [results[0] for results in found if results and results[0].unit == PERCENT]


def _parameters_panel(panel: "Axes", results: Sequence["CellResult"], findings: Findings) -> None:
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
            markerfacecolor="white" if result.marks else colour,
        )
        value = published(result.cell)
        if value is not None:
            panel.plot(x, value, marker="D", markersize=7, color=BLACK, markerfacecolor="none")
    panel.set_xscale("log")
    panel.set_xlim(min(sizes) / 1.6, max(sizes) * 1.6)
    panel.set_xticks(sorted(set(sizes)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.margins(y=0.25)


def summary(findings: Findings) -> "Figure | None":
    """Error of the best SpinalNet, of the state of the art of June 2020, and ours."""
    rows = [c for c in findings.cells.values() if c.reference is not None and published(c)]
    if not rows:
        return None
    figure, axes = _figure(9.5, 1.5 + 2 * ROW * len(rows))
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
            open_ = {"markerfacecolor": "white"} if ours.marks else {}
            panel.plot(100 - ours.mean, row, marker="*", markersize=13, color=BLACK, **open_)
    _rows(panel, [cell.dataset for cell in rows])
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.margins(x=0.08)
    panel.set_xlim(left=0)
    panel.set_xlabel("Error, % (labels: accuracy, %); shorter is better")
    _summary_legend(figure)
    return figure  # type: ignore[no-any-return]


def _bar_label(panel: "Axes", x: float, y: float, text: str) -> None:
    panel.annotate(
        text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5
    )


def _summary_legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    style = {"edgecolor": BLACK, "linewidth": 0.6}
    handles = [
        Patch(facecolor=VERMILION, label="SpinalNet, published best", **style),
        Patch(facecolor=SKY, hatch="///", label="state of the art, June 2020", **style),
        Line2D([], [], linestyle="", marker="*", markersize=12, color=BLACK, label="ours"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


def _best_of(findings: Findings, cell: "Cell") -> "CellResult | None":
    """Our best mean among the cells that a row of the summary stands for; full runs first."""
    found = [runs[0] for name in cell.best_of if (runs := findings.runs(name))]
    return max(found, key=lambda r: (not r.marks, r.mean or 0.0), default=None)


def paired_differences(findings: Findings) -> "Figure | None":
    """Spinal minus FC, seed by seed, cell by cell."""
    pairs = [p for name in findings.cells for p in findings.compared(name)]
    by_unit = {
        "Spinal minus FC, percentage points (right of 0: Spinal better)": [
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
    figure, axes = _figure(
        9.5, 0.4 + ROW * sum(heights), len(panels), 1, gridspec_kw={"height_ratios": heights}
    )
    for panel, (label, found) in zip(axes[:, 0], panels.items(), strict=True):
        _differences_panel(panel, found)
        panel.set_xlabel(label)
    return figure  # type: ignore[no-any-return]


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
            markerfacecolor="white" if pair.spinal.marks else VERMILION,
        )
    panel.axvline(0, color=BLACK, linewidth=1)
    several = len({pair.spinal.protocol for pair in found}) > 1
    names = [f"{pair.spinal.cell.title}, n = {len(pair.seeds)}" for pair in found]
    if several:
        names = [
            f"{name} ({pair.spinal.protocol})" for name, pair in zip(names, found, strict=True)
        ]
    _rows(panel, names)


PLOTS = (
    Plot(
        "mnist_cnn_curve",
        "MNIST CNN, epoch by epoch",
        "Test accuracy and loss after each epoch. Thin lines with open markers: the supplement's "
        "curve, read off the figure; thick lines with filled markers: ours. Bands: one standard "
        "deviation over runs. FC: circles, dashed; Spinal: squares, solid.",
        curve,
    ),
    Plot(
        "against_paper",
        "Ours against the paper",
        "Our mean minus the published number for each cell that was run and has one, with the "
        "95 % interval of the mean over seeds (of one run: that of its finite test set). Open "
        "markers: a reduced budget or a changed recipe. Beside each: published, ours, the number "
        "of runs and the verdict.",
        against_paper,
    ),
    Plot(
        "regression",
        "Regression, Table I",
        "The published metric, mean over seeds with its 95 % interval, beside the paper's single "
        "values (diamonds). Lower is better; the axis is logarithmic.",
        regression,
    ),
    Plot(
        "paired_differences",
        "Spinal minus FC, seed by seed",
        "Each grey tick is one seed, trained with both heads on the same batches from the same "
        "backbone weights; squares are means with the 95 % interval of the paired difference. "
        "Open squares: a reduced budget or a changed recipe.",
        paired_differences,
    ),
    Plot(
        "accuracy_by_parameters",
        "Accuracy against the size of the head",
        "Mean test accuracy with its 95 % interval against the parameters of the head, one panel "
        "a data set and backbone; diamonds are published numbers. Open markers: a reduced budget "
        "or a changed recipe.",
        accuracy_by_parameters,
    ),
    Plot(
        "summary",
        "Best of SpinalNet against the state of the art of June 2020",
        "Error rates of the supplement's bar chart: the published best of SpinalNet (plain bars) "
        "and the state of the art that it names (hatched bars), with our mean (stars; open: a "
        "reduced budget or a changed recipe) where the cell was run. The labels are accuracies.",
        summary,
    ),
)
