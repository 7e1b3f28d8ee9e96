"""Cell by cell: ours against the paper, Spinal against FC, accuracy against size.

Runs that differ from their cell are in the tables only.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spinal_repro.results.figures import common
from spinal_repro.results.figures.common import Row
from spinal_repro.results.findings import ResultsIndex
from spinal_repro.results.outcomes import PAPER, grouped
from spinal_repro.results.pairs import BETTER, WORSE, Pair

SIZES = (0.5, 2.0, 8.0, 100.0)  # of effects, up to so many percentage points


class Effect(NamedTuple):
    """What the paper and we found for a cell and its counterpart, in percentage points."""

    ours: Sequence[Row]  # our means minus the published ones, the counterpart first
    pair: Sequence[Row]  # our difference of the two, if both were run
    claimed: Sequence[float]  # that of the published numbers, if known

    @property
    def size(self) -> float:
        """The first of `SIZES` that no mean and no claim exceeds."""
        means = [row.value for row in (*self.ours, *self.pair)]
        return next(size for size in SIZES if max(map(abs, [*means, *self.claimed])) <= size)


def _ours(index: ResultsIndex, regression: bool = False) -> list[Row]:
    """For each cell and setting, the runs that follow the cell."""
    found: dict[tuple[str, str], Row] = {}
    for result in index.results:
        cell, value = result.cell, result.published.value
        wanted = result.runs and not result.differences and not cell.best_of
        if wanted and (cell.regression is not None) == regression:
            row = Row(result, result.mean, result.interval, result.n, value)
            found.setdefault((cell.name, result.setting), row)
    return list(found.values())


def _compared(index: ResultsIndex, regression: bool = False) -> Iterator[tuple[Pair, Row]]:
    """Pairs of runs that follow their cells, each with its difference."""
    for name, cell in index.cells.items():
        for pair in index.compared(name) if (cell.regression is not None) == regression else ():
            seeds, decided = pair.comparison.differences, pair.verdict in (BETTER, WORSE)
            mean, n = pair.comparison.mean, len(seeds)
            if not pair.spinal.differences:
                yield pair, Row(pair.spinal, mean, pair.interval, n, None, seeds, decided)


def _effects(index: ResultsIndex) -> list[Effect]:
    ours = {}
    for row in _ours(index):
        if (value := row.published) is not None:
            ends = row.interval and (row.interval[0] - value, row.interval[1] - value)
            row = row._replace(value=row.value - value, interval=ends, published=None)
            ours[row.of.cell.name, row.of.setting] = row
    pairs = {(p.spinal.cell.name, p.spinal.setting): [row] for p, row in _compared(index)}
    others = {key: (row.of.cell.counterpart or "", key[1]) for key, row in ours.items()}
    found = []
    for key, row in ours.items():
        if key not in others.values():  # those are drawn with the cells compared with them
            other = index.cells.get(others[key][0])
            said = [row.of.published.value, other.result.value if other else None]
            claimed = [said[0] - said[1]] if said[0] is not None and said[1] is not None else []
            both = [ours[k] for k in (others[key], key) if k in ours]
            found.append(Effect(both, pairs.get(key, []), claimed))
    return sorted(found, key=lambda effect: effect.size)


def against_paper(index: ResultsIndex) -> Figure | None:
    """Is our number the paper's, and is the effect the paper's?

    Left: our mean minus the published number; 0 means equal. Right: Spinal minus FC as we
    measured it on the same seeds and as the paper claims it (diamond); 0 means no effect. Open
    points: undecided. Lines: 95 % intervals. Effects of one size (up to 0.5, 2 or 8 points, or
    above) share a scale.
    """
    bands = {size: list(group) for size, group in groupby(_effects(index), lambda e: e.size)}
    if not bands:
        return None
    ratios = [len(effects) for effects in bands.values()]
    height = 1.2 * sum(ratios) + 0.6 * len(ratios) + 0.4
    figure, axes = common.new_figure(
        height, len(bands), 2, sharey="row", sharex="row", gridspec_kw={"height_ratios": ratios}
    )
    for (left, right), effects in zip(axes, bands.values(), strict=True):
        for place, effect in enumerate(effects):
            _draw_effect(left, right, effect, place)
        left.set(ylim=(len(effects) - 0.5, -0.52), yticks=[], zorder=3)
        left.patch.set_visible(False)  # the names of rows reach into the right panel
        for panel, title in ((left, "Ours minus paper"), (right, "Spinal minus FC")):
            panel.set(title=title, xlabel="percentage points")
            panel.spines["left"].set_visible(False)
            panel.axvline(0, color=common.BLACK, linewidth=1, zorder=1)
    shown = [row for effects in bands.values() for effect in effects for row in effect.ours]
    common.legend(figure, shown, paper=True)
    return figure


def _draw_effect(left: Axes, right: Axes, effect: Effect, place: float) -> None:
    for step, row in enumerate(effect.ours):
        common.draw_point(left, row, place + 0.19 + 0.16 * step)
    right.plot(effect.claimed, [place + 0.19] * len(effect.claimed), **common.PUBLISHED)
    for row in effect.pair:
        common.draw_point(right, row, place + 0.35)
    cell, setting = effect.ours[-1].of.cell, effect.ours[-1].of.setting
    texts = [(left, -0.35, f"{cell.dataset}, {cell.backbone} ({setting})", "bold")]
    texts.append((left, -0.22, effect.ours[-1].title, "bold"))
    for step, row in enumerate(effect.ours):
        numbers = f"{row.of.published.value:.2f} → {row.of.mean:.2f} (n = {row.n})"
        text = f"{common.LABELS[row.of.cell.head_kind]} {numbers}"
        texts.append((left, 0.14 * step - 0.08, text, "normal"))
    texts += [(right, -0.08, f"paper {claimed:+.2f}", "normal") for claimed in effect.claimed]
    texts += [(right, 0.06, f"ours {r.value:+.2f} ({r.n} pairs)", "normal") for r in effect.pair]
    for panel, shift, text, weight in texts:
        where = (0, place + shift)
        common.write(panel, where, text, ("axes fraction", "data"), weight=weight)
    for panel in (left, right):
        panel.axhspan(place - 0.52, place + 0.1, color="white", zorder=1.5)  # behind the text


def regression(index: ResultsIndex) -> Figure | None:
    """The published metric: our mean over seeds with its 95 % interval, and Table I (diamonds).

    Lower is better; each function has its own scale.
    """
    rows = [row for row in _ours(index, regression=True) if row.published is not None]
    panels = grouped(rows, lambda row: (row.panel, "Lowest last-batch MSE, 1e-3"))
    return common.lists(panels, paper=True)


def paired_differences(index: ResultsIndex) -> Figure | None:
    """Accuracy minus that of the head named below the panel, seed by seed: right of 0 is better.

    Ticks are seeds, each with both heads on the same batches from the same backbone weights;
    points are means with 95 % intervals, the highest first. Filled points and bold names:
    decided; open points: undecided. Comparisons with too few pairs for a verdict are left out;
    each panel has its own scale.
    """
    return _differences(index, False, "percentage points")


def regression_differences(index: ResultsIndex) -> Figure | None:
    """Mean square error minus that of the FC net, seed by seed: left of 0 is better than FC.

    Ticks are seeds; points are means with 95 % intervals, the highest first. Filled points and
    bold names: decided; open points: undecided. Each function has its own scale.
    """
    return _differences(index, True, "1e-3")


def _differences(index: ResultsIndex, regression: bool, unit: str) -> Figure | None:
    panels = defaultdict(list)
    for pair, row in _compared(index, regression):
        if pair.decidable:
            panels[row.panel, f"minus {pair.fc.cell.head}, {unit}"].append(row)
    for rows in panels.values():
        rows.sort(key=lambda row: -row.value)
    return common.lists(panels)


def accuracy_by_parameters(index: ResultsIndex) -> Figure | None:
    """Mean test accuracy with its 95 % interval against the parameters of the head.

    One panel for each data set, network and protocol with two heads or more; names are in the
    order of the accuracies. Diamonds: the paper's numbers, under its own protocol.
    """
    counted = [row for row in _ours(index) if row.of.cell.name in index.counts]
    found = grouped(counted, lambda row: row.panel)
    panels = {title: rows for title, rows in found.items() if len(rows) > 1}
    if not panels:
        return None
    heights = [max(1.3, common.height(row.name for row in rows)) for rows in panels.values()]
    figure, axes = common.stacked(panels, heights)
    for panel, rows in zip(axes, panels.values(), strict=True):
        sizes = [index.counts[row.of.cell.name]["head_parameters"] for row in rows]
        _parameters_panel(panel, rows, sizes)
        panel.set(xlabel="Parameters of the head", ylabel="Test accuracy, %")
    common.legend(figure, [row for rows in panels.values() for row in rows], paper=True)
    return figure


def _parameters_panel(panel: Axes, rows: Sequence[Row], sizes: Sequence[int]) -> None:
    line = {"arrowstyle": "-", "color": common.GREY, "linewidth": 0.6, "relpos": (0, 0.5)}
    points = sorted(zip(rows, sizes, strict=True), key=lambda point: point[0].value)
    for rank, (row, size) in enumerate(points):
        ends = row.interval and (row.interval[0], min(row.interval[1], 100))
        said = row.published if row.of.protocol == PAPER else None
        common.draw_point(panel, row._replace(interval=ends, published=said), size, vertical=True)
        at = 1.06, (rank + 0.5) / len(points)
        panel.annotate(row.name, (size, row.value), at, "data", "axes fraction", line, va="center")
    panel.set_xscale("log")
    ratio = max(max(sizes) / min(sizes), 1.05)
    panel.set_xlim(min(sizes) / ratio**0.25, max(sizes) * ratio**0.25)
    ticks = [min(sizes)]  # spaced so that labels do not overlap
    for size in sorted(sizes):
        if size >= ticks[-1] * ratio**0.4:
            ticks.append(size)
    panel.set_xticks(ticks, [f"{size:,}" for size in ticks])
    panel.set_xticks([], minor=True)
    panel.margins(y=0.12)
    panel.set_ylim(top=min(panel.get_ylim()[1], 100))
