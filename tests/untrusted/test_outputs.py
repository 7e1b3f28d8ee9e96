"""Names from strangers in every output: shown as they are, obeyed by nobody, breaking nothing."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))
from fakes import fc_and_spinal, findings, result

from spinal_repro.cli.spinal import main
from spinal_repro.cli.train import main as train
from spinal_repro.errors import UserError
from spinal_repro.files import write_json
from spinal_repro.results import figures
from spinal_repro.results.confusion import draw_confusion
from spinal_repro.results.pages import files
from spinal_repro.results.report import render as render_page
from spinal_repro.results.tables import FORMATS, Column, render
from spinal_repro.text import csv_text, printable

SCREEN = "\x1b[2J\x1b]0;owned\x07"
EVIL = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "attribute": "\" onmouseover='alert(1)' x=\"",
    "template": "{{ 7 * 191 }}{% raw %}",
    "terminal": f"red{SCREEN}",
    "turned": "abc\u202efdp.exe",
    "surrogate": os.fsdecode(b"caf\xe9"),
    "markdown": "[x](javascript:alert(1)) ![y](http://z) | `c` ~~s~~ <b>\n# h $\\x$",
    "latex": r"\input{/etc/passwd}\write18{id} $x^2$ & % # _ { } ~",
    "row": r"[1cm] * \\ \hline",
    "formula": "=HYPERLINK(\"http://z\",\"click\")",
    "minus": "-2+3+cmd|' /C calc'!A0",
    "math": r"$\frac{1$ and $\undefined{$",
    "comment": "<!-- end --><!-- table: * -->",
}  # fmt: skip
COLUMNS = (Column("name", "Name", "a name"), Column("value", "Value"))
names = pytest.mark.parametrize("evil", EVIL.values(), ids=list(EVIL))


@names
def test_printable_text_is_one_harmless_line_that_can_be_encoded(evil):
    shown = printable(evil)
    assert shown.encode() and not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", shown)
    assert printable(shown) == shown


@pytest.mark.parametrize("text", ["Müller, 数字 and 😀", "plain", "a\u0301"])
def test_text_that_harms_nobody_stays_as_it_is(text):
    assert printable(text) == text


@names
@pytest.mark.parametrize("style", FORMATS)
def test_tables(evil, style):
    shown = render(COLUMNS, [{"name": evil, "value": 1.5}, {"name": "plain", "value": -2}], style)
    shown.encode()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    if style == "csv":
        _, first, second = csv.reader(io.StringIO(shown))
        assert len(first) == 2 and second == ["plain", "-2"], "numbers stay numbers"
        assert first[0].removeprefix("'") == printable(evil)
        assert not first[0].startswith(("=", "+", "-", "@"))
    elif style == "markdown":
        rows = [line for line in shown.splitlines() if line.startswith("|")]
        assert len(rows) == 4, "one line a row"
        assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3] * 4
        assert not re.search(r"(?<!\\)[<\[$~`]|javascript:alert\(1\)\)(?!.*\\\[)", rows[2])
    elif style == "latex":
        (row,) = [line for line in shown.splitlines() if line.endswith(r"1.5 \\")]
        assert not row.startswith(("[", "*"))
        plain = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|text\w+)\{\}", "", row)
        assert (
            not re.search(r"(?<!\\)[%#$_~^]", plain) and plain.count("&") - plain.count(r"\&") == 1
        )
        assert not re.search(r"\\(input|write|hline)", row)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x85", "\u2028"])
def test_definitions_in_latex_stay_comments(end):
    columns = [Column("name", f"Name{end}\\input{{x}}", f"a name{end}\\write18{{id}}")]
    notes, _, _ = render(columns, [{"name": "x"}], "latex").partition("\\begin")
    assert "write18" in notes and all(line.startswith("%") for line in notes.splitlines())


def test_numbers_that_are_text_are_not_formulas():
    assert [csv_text(t) for t in ("-1.5", "+3", "1e-3", "=1", "-x")] == [
        "-1.5", "+3", "1e-3", "'=1", "'-x",
    ]  # fmt: skip


def evil_findings(evil: str):
    fc, spinal = fc_and_spinal(title=evil, dataset=evil, backbone=evil, assumptions=(evil,))
    results = [
        result(fc, [98.0, 98.1], curves=[[97.0, 98.0], [97.5, 98.1]]),
        result(spinal, [98.2, 98.3], marks=(evil,)),
    ]
    for run in (run for r in results for run in r.runs):
        run.record["git"] = {"commit": evil, "modified": True}
        run.record["environment"]["torch"] = evil
    return findings([fc, spinal], results, {"mnist/fc": {}, "mnist/sp": {}})


@names
def test_pages_and_report(evil, monkeypatch):
    monkeypatch.setattr("spinal_repro.results.pages.claims", lambda *given: [])
    known = evil_findings(evil)
    page = render_page(known, [], [])
    page.encode()
    assert "<img src=x" not in page and "onmouseover='" not in page and "1337" not in page
    assert page.count("<script>") == 2, "the page's own"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", page)
    for name, text in files(known.results, {}, {"mnist": evil}).items():
        text.encode()
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert "<script" not in text or not name.endswith(".md")


def test_figures_of_cells_called_anything():
    drawn = list(figures.draw(evil_findings(" ".join(EVIL.values()))))
    assert drawn and all(figure.png and figure.svg for figure in drawn)
    assert not any(b"<script" in figure.svg for figure in drawn)


@pytest.mark.parametrize("evil", [EVIL["math"], EVIL["surrogate"], EVIL["terminal"], "$x$"])
def test_confusion_of_classes_called_anything(evil, tmp_path):
    """Matplotlib alone raises on half a formula in a class name."""
    from matplotlib.figure import Figure

    if evil == EVIL["math"]:
        naive = Figure()
        naive.add_subplot().set_title(evil)
        with pytest.raises(ValueError):
            naive.savefig(tmp_path / "naive.png")
    draw_confusion(np.eye(2, dtype=np.int64), [evil, "b"], evil, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


@names
def test_status(evil, tmp_path, capsys):
    name = printable(evil).replace("/", "_")[:60] if evil == EVIL["html"] else evil
    folder = tmp_path / "runs" / name.replace("/", "_").replace("\n", " ") / "heldout-1" / "s0"
    folder.mkdir(parents=True)
    write_json(folder / "status.json", {"state": evil, "epochs": evil, "pid": 1})
    main(["status", str(tmp_path / "runs")])
    said = capsys.readouterr().out
    said.encode()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)
    assert len(said.splitlines()) == 3  # heading, rule, row


def test_what_is_complained_of_is_not_obeyed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["status", str(tmp_path / SCREEN)])
    assert "\x1b" not in capsys.readouterr().err


def test_what_training_complains_of_is_not_obeyed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spinal-train", f"--config-dir=no{SCREEN}", "dataset=digits"])
    with pytest.raises(SystemExit):
        train()
    assert "\x1b" not in capsys.readouterr().err


def test_a_title_with_escape_codes_is_refused():
    from spinal_repro.config import compose, validate

    plain = compose([]).to_dict()
    plain["dataset"]["title"] = SCREEN
    with pytest.raises(UserError, match="control characters"):
        validate(plain)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex to set the table")
def test_latex_sets_them_all(tmp_path):
    rows = [{"name": e, "value": 1} for e in EVIL.values() if printable(e).isascii()]
    table = render(COLUMNS, rows, "latex")
    (tmp_path / "x.tex").write_text(
        f"\\documentclass{{article}}\\begin{{document}}\n{table}\n\\end{{document}}\n"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "x.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-1500:]
