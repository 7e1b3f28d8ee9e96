"""Figures: the same bytes for the same findings, whatever there is or is not."""

import re
from xml.etree import ElementTree

import pytest
from helpers.fakes import SHORT, cell, fc_and_spinal, findings, result

from spinal_repro.paper.cells import Published
from spinal_repro.results import figures
from spinal_repro.results.figures import PLOTS
from spinal_repro.results.figures.supplement import published_curves

ALWAYS = {"mnist_cnn_curve"}  # the supplement's curve is there before any run is


@pytest.fixture(scope="module")
def drawn() -> list[figures.Drawn]:
    fc, spinal = fc_and_spinal()
    net = {"unit": "1e-3", "regression": {"net": "spinal", "function": "sum", "epochs": 100}}
    toy = (
        cell("regression/normal", **net),
        cell("regression/spinal", counterpart="regression/normal", **net),
    )
    said = Published("accuracy %", 98.3, "%", "unknown", None, "a chart", "digitised")
    row = cell("summary/mnist", best_of=("mnist/sp",), reference=said)
    runs = [
        result(fc, [98.0, 98.1, 98.2]),
        result(spinal, [98.3, 98.2, 98.4], differences=(SHORT,)),
        result(spinal, [98.3]),
        result(toy[0], [1.0, 2.0]),
        result(toy[1], [3.0, 2.0]),
    ]
    counts = {"mnist/fc": {}, "mnist/sp": {"head_parameters": 90}}
    return list(figures.draw(findings([fc, spinal, *toy, row], runs, counts)))


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


def test_the_supplements_curve_is_read_whole():
    for curve in published_curves("loss").values():
        assert list(curve.index)[-19:] == list(range(2, 21))  # one first value cannot be read off
        assert curve["std"].isna().all()
    accuracy = published_curves("accuracy")
    for curve in accuracy.values():
        assert list(curve.index) == [1, *curve["std"].dropna().index] == list(range(1, 21))
    assert accuracy["FC 320-50-10"]["mean"][8] == 98.17
    assert accuracy["Spinal 6 x 8"]["mean"][8] == 98.35
