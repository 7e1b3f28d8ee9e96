"""Cell by cell: ours against the paper, Spinal against FC, accuracy against size."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, NullFormatter

from spinal_repro.io import printable
from spinal_repro.results.figures import common
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import PAPER, ResultGroup
from spinal_repro.results.pairs import Pair

ELSEWHERE = ("curve", "summary")  # tables with their own figures


def _published_results(index: ResultsIndex, unit: str) -> list[ResultGroup]:
    """For each cell with a published number and each protocol, the runs that differ least."""
    found: dict[tuple[str, str], ResultGroup] = {}
    for result in index.results:
        known = result.published.value is not None and result.published.unit == unit
        own = result.runs and not result.cell.best_of
        if known and own and not index.is_subset_of_other_cell(result):
            found.setdefault((result.cell.name, result.protocol), result)
    return list(found.values())


def _with_settings(names: Sequence[str], results: Sequence[ResultGroup]) -> list[str]:
    """Names of results, with their settings where not all are the paper's."""
    if {result.setting for result in results} == {PAPER}:
        return list(names)
    return [f"{name} ({result.setting})" for name, result in zip(names, results, strict=True)]


def against_paper(index: ResultsIndex) -> Figure | None:
    """Our mean minus the published number, for each cell that was run and has one.

    Lines are the 95 % interval of the mean over seeds (of one run: of its finite test set). Open
    markers: a reduced budget or a changed recipe. Beside each: published, ours, the number of
    runs and the verdict.
    """
    results = _published_results(index, "%")
    if not results:
        return None
    figure, axes = common.new_figure(9.5, 1.3 + common.ROW * len(results))
    panel = axes[0][0]
    for row, result in enumerate(results):
        value = result.published.value
        assert value is not None
        common.draw_point(panel, result, result.mean, result.interval, row, shift=value)
        panel.annotate(
            f"{value:.2f} → {result.mean:.2f}, n = {result.n}, {result.verdict}",
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            annotation_clip=False,
        )
    panel.axvline(0, color=common.BLACK, linewidth=1)
    common.name_rows(panel, _with_settings([r.cell.title for r in results], results))
    panel.set_xlabel("Ours minus published, percentage points")
    common.head_legend(figure, results)
    return figure


def regression(index: ResultsIndex) -> Figure | None:
    """The published metric: our mean over seeds with its 95 % interval, and Table I (diamonds).

    Lower is better; the axis is logarithmic.
    """
    results = _published_results(index, "1e-3")
    if not results:
        return None
    figure, axes = common.new_figure(9.5, 1.6 + common.ROW * len(results))
    panel = axes[0][0]
    for row, result in enumerate(results):
        common.draw_point(panel, result, result.mean, result.interval, row)
        panel.plot(result.published.value, row, **common.PUBLISHED)
    panel.set_xscale("log")
    for choose in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
        choose(LogFormatter(minor_thresholds=(2, 0.5)))
    common.name_rows(panel, [f"{result.cell.title}, n = {result.n}" for result in results])
    panel.set_xlabel("Lowest mean square error of a last mini-batch, in 1e-3")
    common.head_legend(figure, results, published=True)
    return figure


def accuracy_by_parameters(index: ResultsIndex) -> Figure | None:
    """Mean test accuracy with its 95 % interval against the parameters of the head.

    One panel for each data set and backbone; diamonds are published numbers. Open markers: a
    reduced budget or a changed recipe.
    """
    panels: dict[tuple[str, str], list[ResultGroup]] = {}
    for name, cell in index.cells.items():
        whole = [r for r in index.runs(name) if not index.is_subset_of_other_cell(r)]
        shown = cell.table not in ELSEWHERE and name in index.counts
        if whole and shown and whole[0].published.unit == "%":
            panels.setdefault((cell.dataset, cell.backbone), []).append(whole[0])
    if not panels:
        return None
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = common.new_figure(max(5.5, 3.6 * columns), 0.9 + 3.2 * lines, lines, columns)
    for panel, (title, results) in zip(axes.flat, panels.items(), strict=False):
        _parameters_panel(panel, results, index)
        panel.set_title(printable(", ".join(title)))
        panel.set_xlabel("Parameters of the head")
    for panel in axes.flat[len(panels) :]:
        panel.set_visible(False)
    figure.supylabel("Test accuracy, %")
    common.head_legend(figure, [r for rs in panels.values() for r in rs], published=True)
    return figure


def _parameters_panel(panel: Axes, results: Sequence[ResultGroup], index: ResultsIndex) -> None:
    sizes = [index.counts[result.cell.name]["head_parameters"] for result in results]
    for size, result in zip(sizes, results, strict=True):
        common.draw_point(panel, result, result.mean, result.interval, size, vertical=True)
        if result.published.value is not None:
            panel.plot(size, result.published.value, markersize=7, **common.PUBLISHED)
    panel.set_xscale("log")
    ratio = max(max(sizes) / min(sizes), 1.05)
    panel.set_xlim(min(sizes) / ratio**0.6, max(sizes) * ratio**0.6)
    ticks = [min(sizes)]  # spaced so that labels do not overlap
    for size in sorted(sizes):
        if size >= ticks[-1] * ratio**0.4:
            ticks.append(size)
    panel.set_xticks(ticks)
    panel.tick_params(axis="x", which="minor", length=0)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.margins(y=0.25)


def paired_differences(index: ResultsIndex) -> Figure | None:
    """Difference from the FC head for each seed (grey ticks), with mean and 95 % interval.

    Both heads of a seed are trained on the same batches from the same backbone weights. Open
    markers: a reduced budget or a changed recipe.
    """
    panels: dict[str, list[Pair]] = {}
    for name, cell in index.cells.items():
        if cell.regression is None:
            label = "Difference from the FC head, percentage points (right of 0: better than it)"
        else:
            label = "Spinal minus FC, mean square error in 1e-3 (left of 0: Spinal better)"
        pairs = [p for p in index.compared(name) if not index.is_subset_of_other_cell(p.spinal)]
        if pairs:
            panels.setdefault(label, []).extend(pairs)
    if not panels:
        return None
    heights = [len(pairs) + 2.5 for pairs in panels.values()]
    figure, axes = common.new_figure(
        9.5, 0.4 + common.ROW * sum(heights), len(panels), gridspec_kw={"height_ratios": heights}
    )
    for panel, (label, pairs) in zip(axes[:, 0], panels.items(), strict=True):
        _differences_panel(panel, pairs)
        panel.set_xlabel(label)
    common.head_legend(figure, [pair.spinal for pairs in panels.values() for pair in pairs])
    return figure


def _differences_panel(panel: Axes, pairs: Sequence[Pair]) -> None:
    for row, pair in enumerate(pairs):
        compared = pair.comparison
        rows = [row] * len(compared.differences)
        panel.plot(compared.differences, rows, "|", markersize=11, color=common.GREY)
        common.draw_point(panel, pair.spinal, compared.mean, compared.interval, row)
    panel.axvline(0, color=common.BLACK, linewidth=1)
    names = [f"{pair.spinal.cell.title}, n = {len(pair.seeds)}" for pair in pairs]
    common.name_rows(panel, _with_settings(names, [pair.spinal for pair in pairs]))
