"""Figures: the same bytes for the same findings, whatever there is or is not."""

import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest
from helpers.fakes import CHANGED, cell, fc_and_spinal, findings, result
from matplotlib.axes import Axes
from matplotlib.text import Text

from spinal_repro.paper.cells import Cell, Published, load_cells
from spinal_repro.results import figures
from spinal_repro.results.figures import PLOTS, cells, supplement
from spinal_repro.results.figures.supplement import published_curves
from spinal_repro.results.findings import ResultsIndex

ALWAYS = {"mnist_cnn_curve"}  # the supplement's curve is there before any run is


FC = [98.0, 98.1, 98.2, 98.0, 98.1, 98.2]
UNDECIDED = [0.3, -0.3, 0.2, -0.2, 0.1, -0.1]  # differences from FC, decided: all of one sign


def titled(name: str, head: str, **more: Any) -> Cell:
    more = {"dataset": "MNIST", "backbone": "CNN"} | more
    text = f"{more['dataset']}, {more['backbone']}, {head}"
    return cell(name, title=text, head=head, **more)


def plus(differences: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(FC, differences, strict=True)]


@pytest.fixture(scope="module")
def index() -> ResultsIndex:
    fc = titled("mnist/fc", "FC 320-50-10", head_kind="fc", value=98.17)
    kind: Any = {"head_kind": "spinal", "counterpart": "mnist/fc"}
    spinal = titled("mnist/sp", "Spinal 6 x 8", value=98.44, **kind)
    shared = titled("controls/shared", "Spinal 6 x 8, shared", value=None, **kind)
    few = titled("mnist/few", "Spinal 6 x 10", value=None, **kind)
    of = {"dataset": "Oxford 102 Flowers", "backbone": "Wide-ResNet-101-2"}
    wide = titled("transfer/fc", "FC 2048-512-102", head_kind="fc", value=96.0, **of)
    kind["counterpart"] = "transfer/fc"
    narrow = titled(
        "transfer/sp", "Spinal 4 x 102, dropout and batch norm", value=99.0, **of, **kind
    )
    net: Any = {"unit": "1e-3", "regression": {"net": "spinal", "function": "sum", "epochs": 100}}
    toy = titled("regression/normal", "8-200-100-1", head_kind="fc", **net)
    kind["counterpart"] = "regression/normal"
    toys = titled("regression/spinal", "Spinal 6 x 50, layers reused", **kind, **net)
    said = Published("accuracy %", 98.3, "%", "unknown", None, "a chart", "digitised")
    row = titled("summary/mnist", "Spinal", best_of=("mnist/sp",), reference=said)
    unlike = titled("summary/changed", "Spinal", best_of=("mnist/few",), reference=said)
    runs = [
        result(fc, FC),
        result(spinal, plus([0.2, 0.3, 0.25, 0.35, 0.2, 0.3])),
        result(shared, plus(UNDECIDED)),
        result(few, FC[:3], differences=(CHANGED,)),
        result(few, [60.0] * 3, protocol="heldout"),
        result(wide, [96.0, 95.0, 94.0, 95.0, 95.5, 94.5]),
        result(narrow, [99.9, 100.0, 99.8, 100.0, 100.0, 99.9]),
        result(toy, [2.0, 3.0, 2.5, 2.0, 3.0, 2.5]),
        result(toys, [1.0, 2.0, 1.0, 1.2, 1.4, 1.6]),
    ]
    sizes = {"mnist/fc": 16560, "mnist/sp": 8538, "controls/shared": 8539, "mnist/few": 3000}
    sizes |= {"transfer/fc": 10**6, "transfer/sp": 10**5}
    counts = {name: {"head_parameters": size} for name, size in sizes.items()}
    cells = [fc, spinal, shared, few, wide, narrow, toy, toys, row, unlike]
    return findings(cells, runs, counts)


@pytest.fixture(scope="module")
def drawn(index) -> list[figures.Drawn]:
    return list(figures.draw(index))


def points(panel: Axes) -> dict[float, float]:
    """Mean and place of each point with an interval."""
    lines = [box.lines[0] for box in panel.containers]
    return {float(line.get_xdata()[0]): float(line.get_ydata()[0]) for line in lines}


@pytest.mark.parametrize("plot", PLOTS)
def test_no_text_is_small_cut_off_or_over_another(plot, index, monkeypatch):
    with matplotlib.rc_context(figures.STYLE):
        figure = plot(index)
        figure.draw_without_rendering()
        texts: list[Text] = []
        monkeypatch.setattr(Text, "draw", lambda text, renderer: texts.append(text))
        figure.draw_without_rendering()
    shown = [text for text in texts if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in shown]
    assert len(boxes) > 5
    assert min(text.get_fontsize() for text in texts) >= 9
    assert figure.get_figwidth() <= 5
    for text, box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
    for (text, box), (other, over) in combinations(boxes, 2):
        assert not box.padded(-1).overlaps(over.padded(-1)), (text, other)


def test_each_size_of_effect_has_its_own_scale_and_the_claim_beside_the_measured(index):
    axes = cells.against_paper(index).axes
    small, large = axes[1::2]  # the right panels
    assert 0 < small.get_xlim()[1] < 1 < 3 < large.get_xlim()[1]
    for panel, claimed, measured in ((small, 98.44 - 98.17, 1.6 / 6), (large, 3.0, 29.6 / 6)):
        (diamond,) = [d for d in panel.lines if d.get_marker() == "D"]
        assert list(diamond.get_xdata()) == pytest.approx([claimed])
        assert list(points(panel)) == pytest.approx([measured])
    assert sorted(points(axes[0])) == pytest.approx(sorted([98.1 - 98.17, 98.1 + 1.6 / 6 - 98.44]))


def test_differences_are_sorted_on_own_scales_and_undecided_ones_are_open(index):
    mnist, flowers = cells.paired_differences(index).axes
    places = points(mnist)
    assert sorted(places, key=places.get) == sorted(places, reverse=True)
    assert len(places) == 2  # the changed recipe has too few pairs
    assert mnist.get_xlim()[1] < 1 < flowers.get_xlim()[1]
    weights = {name.get_text(): name.get_fontweight() for name in mnist.get_yticklabels()}
    assert weights == {"Spinal 6 x 8": "bold", "Spinal 6 x 8, shared": "normal"}
    faces = [box.lines[0].get_markerfacecolor() == "white" for box in mnist.containers]
    assert faces == [False, True]
    (toys,) = cells.regression_differences(index).axes
    assert max(points(toys)) < 0


def test_every_head_is_named_and_no_axis_of_accuracy_goes_beyond_100(index):
    panels = cells.accuracy_by_parameters(index).axes
    assert [len(panel.containers) for panel in panels] == [3, 2]
    for panel in panels:
        assert panel.get_ylim()[1] <= 100
        named = {text.get_text().replace("\n", " ") for text in panel.texts}
        titles = {c.title.split(", ", 2)[-1] for c in index.cells.values()}
        assert len(named & titles) == len(panel.containers)


def test_the_summary_has_a_logarithmic_axis_and_ours_only_where_run_as_published(index):
    (panel,) = supplement.summary(index).axes
    assert panel.get_xscale() == "log"
    stars = [line.get_xdata()[0] for line in panel.lines if line.get_marker() == "*"]
    assert stars == pytest.approx([100 - 98.1 - 1.6 / 6])


def test_every_figure_is_drawn_and_written(drawn, tmp_path):
    assert [figure.name for figure in drawn] == [plot.__name__ for plot in PLOTS]
    figures.write(drawn, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 * len(drawn)


def test_svg_is_well_formed_and_names_no_date_and_no_version(drawn):
    for figure in drawn:
        assert figure.caption.endswith(".")
        ElementTree.fromstring(figure.svg)
        text = figure.svg.decode()
        assert not re.search(r"<dc:date>|Matplotlib v", text)
        assert figure.png.startswith(b"\x89PNG") and b"Software" not in figure.png


def test_the_same_findings_give_the_same_bytes_and_nothing_to_draw_gives_nothing():
    first, second = (list(figures.draw(findings([*fc_and_spinal()]))) for _ in range(2))
    assert first == second
    assert {figure.name for figure in first} == ALWAYS


def test_more_than_a_hundred_seeds_of_a_row_take_no_more_room():
    def size(seeds: int) -> int:
        fc, spinal = fc_and_spinal()
        values = [97 + i % 7 / 10 for i in range(seeds)]
        better = [value + 0.2 + i % 5 / 50 for i, value in enumerate(values)]
        figure = cells.paired_differences(
            findings([fc, spinal], [result(fc, values), result(spinal, better)])
        )
        assert figure is not None
        return len(figures._bytes(figure, "svg", {"Date": None}))

    assert size(240) - size(120) < 500


def test_the_supplements_curve_is_read_whole():
    for curve in published_curves("loss").values():
        assert list(curve.index)[-19:] == list(range(2, 21))  # one first value cannot be read off
        assert curve["std"].isna().all()
    accuracy = published_curves("accuracy")
    for of in load_cells("curve"):
        curve = accuracy[of.head]
        assert list(curve.index) == [1, *curve["std"].dropna().index] == list(range(1, 21))
        assert curve["mean"][20] == of.published[0].value
    assert accuracy["FC 320-50-10"]["mean"][8] == 98.17
    assert accuracy["Spinal 6 x 8"]["mean"][8] == 98.35
