"""Files that people exchange: they run no code, and their texts stay texts.

Weights: see models/test_pretrained.py; archives: see data/test_archives.py.
"""

import copy
import csv
import io
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from helpers.composing import composed
from helpers.fakes import fc_and_spinal, findings, result

from spinal_repro.errors import UserError
from spinal_repro.io import csv_text, printable, read_yaml, write_json
from spinal_repro.records.compare import Difference
from spinal_repro.records.record import stored_config
from spinal_repro.results.claims import Claim, Judged
from spinal_repro.results.confusion import draw_confusion
from spinal_repro.results.figures import Drawn
from spinal_repro.results.pages import files
from spinal_repro.results.report import render as render_page
from spinal_repro.results.rules import Judgement
from spinal_repro.results.tables import FORMATS, Column, render
from spinal_repro.training.check import check_parts


def test_yaml_makes_no_objects(tmp_path):
    path, made = tmp_path / "config.yaml", tmp_path / "made"
    path.write_text(f"x: !!python/object/apply:os.mkdir ['{made}']")
    yaml.unsafe_load(path.read_text())
    made.rmdir()
    with pytest.raises(UserError, match=r"config\.yaml"):
        read_yaml(path)
    assert not made.exists()


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("recipe._target_", "os.system", "'_target_'"),
        ("model._target_", "os.system", "'_target_'"),
        ("_target_", "os.system", "'_target_'"),
        ("dataset.name", "../../x", r"dataset\.name"),
        ("model.name", "hf_hub:somebody/model", r"model\.name"),
        ("protocol.name", "a/b", r"protocol\.name"),
    ],
)
def test_a_stored_configuration_names_no_code_and_no_other_folder(key, value, named):
    stored = copy.deepcopy(composed().to_dict())
    group, _, option = key.rpartition(".")
    (stored[group] if group else stored)[option] = value
    with pytest.raises(UserError, match=named):
        config = stored_config(stored)
        check_parts(config)


# Names from records in tables, pages, figures and the terminal

SCREEN = "\x1b[2J\x1b]0;owned\x07"
NAMES = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>\" onmouseover='alert(1)' x=\"",
    "template": "{{ 7 * 191 }}{% raw %}",
    "terminal": f"red{SCREEN}",
    "surrogate": os.fsdecode(b"caf\xe9"),
    "markdown": "[x](javascript:alert(1)) ![y](http://z) | `c` ~~s~~ <b>\n# h $\\x$",
    "latex": r"\input{/etc/passwd}\write18{id} $x^2$ & % # _ { } ~",
    "row": r"[1cm] * \\ \hline",
    "formula": '=HYPERLINK("http://z","click")',
    "comment": "<!-- end --><!-- table: * -->",
}
COLUMNS = (Column("name", "Name", "a name"), Column("value", "Value"))
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
names = pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))


@names
@pytest.mark.parametrize("style", FORMATS)
def test_tables(name, style):
    shown = render(COLUMNS, [{"name": name, "value": 1.5}, {"name": "plain", "value": -2}], style)
    assert shown.encode() and not CONTROL.search(shown)
    if style == "csv":
        _, first, second = csv.reader(io.StringIO(shown))
        assert len(first) == 2 and second == ["plain", "-2"], "numbers stay numbers"
        assert first[0].removeprefix("'") == printable(name)
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
        assert not re.search(r"(?<!\\)[%#$_~^]", plain)
        assert plain.count("&") - plain.count(r"\&") == 1
        assert not re.search(r"\\(input|write|hline)", row)


def test_ordinary_text_and_numbers_stay_as_they_are():
    for text in ("Müller, 数字 and 😀", "plain", "a\u0301"):
        assert printable(text) == text
    kept = ["-1.5", "+3", "1e-3"]
    assert [csv_text(text) for text in (*kept, "=1", "-x")] == [*kept, "'=1", "'-x"]


@pytest.mark.parametrize("kind", ["html", "template", "surrogate", "comment"])
def test_pages_and_report(kind, monkeypatch):
    monkeypatch.setattr("spinal_repro.results.pages.claims_markdown", lambda index: "")
    name = NAMES[kind]
    fc, spinal = fc_and_spinal(title=name, dataset=name, backbone=name, assumptions=(name,))
    results = [
        result(fc, [98.0, 98.1], curves=[[97.0, 98.0], [97.5, 98.1]]),
        result(
            spinal,
            [98.2, 98.3],
            differences=(Difference.of(name, name, name),),
            git={"commit": name, "modified": True},
            environment={"device": "cpu", "torch": name},
        ),
    ]
    known = findings([fc, spinal], results, {"mnist/fc": {}, "mnist/sp": {}})
    claim = Judged(Claim(name, name, "accuracy", "", {}, name), Judgement("supported", name))
    page = render_page(known, [claim], [Drawn("a", name, name, b"<svg/>", b"")])
    page.encode()
    assert "<img src=x" not in page and "onmouseover='" not in page and "1337" not in page
    assert page.count("<script>") == 2, "the page's own"
    for file, text in files(replace(known, titles={"mnist": name})).items():
        text.encode()
        assert "<script" not in text or not file.endswith(".md")


@pytest.mark.parametrize("name", [r"$\frac{1$ and $\undefined{$", NAMES["surrogate"]])
def test_class_names_in_a_figure(name, tmp_path):
    """Matplotlib alone raises on half a formula in a class name."""
    draw_confusion(np.eye(2, dtype=np.int64), [name, "b"], name, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_status_and_messages_on_the_terminal(here, call):
    folder = here / "runs" / f"x{SCREEN}" / "heldout-1" / "s0"
    folder.mkdir(parents=True)
    write_json(folder / "status.json", {"state": SCREEN, "epochs": SCREEN, "pid": 1})
    for ended in (call("spinal", "status", "runs"), call("spinal", "status", SCREEN)):
        assert "owned" in ended.out + ended.err and "\x1b" not in ended.out + ended.err
