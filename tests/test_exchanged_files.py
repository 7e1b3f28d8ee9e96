"""Files that people exchange: they run no code, and a malformed one is one clear message."""

import csv
import io
import os
import pickle
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.fakes import fc_and_spinal, findings, result

from spinal_repro.cli.spinal import main
from spinal_repro.config.compose import compose
from spinal_repro.errors import UserError
from spinal_repro.io import csv_text, printable, read_json, read_yaml, write_json
from spinal_repro.models.pretrained import read_tensors
from spinal_repro.records.compare import Difference
from spinal_repro.records.record import stored_config
from spinal_repro.results.confusion import draw_confusion
from spinal_repro.results.pages import files
from spinal_repro.results.report import render as render_page
from spinal_repro.results.tables import FORMATS, Column, render

# Code. Each test also shows that the obvious way to read the file would run it.


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_run_no_code(tmp_path, zipped):
    path, made = tmp_path / "weights.pth", tmp_path / "made"
    content = {"weight": torch.ones(2, 2), "bias": Touch(made)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    torch.load(path, weights_only=False)
    made.unlink()
    with pytest.raises(UserError, match=r"weights\.pth"):
        read_tensors(path)
    assert not made.exists()


def test_a_bare_pickle_as_weights_runs_no_code(tmp_path):
    path, made = tmp_path / "weights.pt", tmp_path / "made"
    path.write_bytes(pickle.dumps({"weight": Touch(made)}))
    with pytest.raises(UserError, match=r"weights\.pt"):
        read_tensors(path)
    assert not made.exists()


def test_yaml_makes_no_objects(tmp_path):
    path, made = tmp_path / "config.yaml", tmp_path / "made"
    path.write_text(f"x: !!python/object/apply:os.mkdir ['{made}']")
    yaml.unsafe_load(path.read_text())
    made.rmdir()
    with pytest.raises(UserError, match=r"config\.yaml"):
        read_yaml(path)
    assert not made.exists()


# Malformed files


@pytest.mark.parametrize("read", [read_json, read_yaml])
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", None])
def test_what_cannot_be_read_is_one_message_with_the_name_of_the_file(tmp_path, read, content):
    path = tmp_path / "some.file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"some\.file") as error:
        read(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]"])
def test_json_without_nan(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": {"_target_": "os.system"}}, "no option of recipe '_target_'"),
        ({"model": {"_target_": "os.system"}}, "no option of model 'cnn' '_target_'"),
        ({"_target_": "os.system"}, "no configuration key '_target_'"),
        ({"dataset": {"name": "../../x"}}, r"dataset\.name must be made of letters"),
        ({"model": {"name": "hf_hub:somebody/model", "kind": "timm"}}, r"model\.name must be made"),
        ({"protocol": {"name": "a/b"}}, r"protocol\.name must be made of letters"),
    ],
)
def test_a_stored_configuration_names_no_code_and_no_other_folder(tmp_path, change, message):
    from spinal_repro.training.run import run

    stored = compose(["recipe.epochs=1", "data.limit=100"]).to_dict() | {"runs": str(tmp_path)}
    for group, settings in change.items():
        merged = isinstance(settings, dict)
        stored[group] = {**stored.get(group, {}), **settings} if merged else settings
    with pytest.raises(UserError, match=message):
        run(stored_config(stored))
    assert list(tmp_path.iterdir()) == []


# Names from records in tables, pages, figures and the terminal

SCREEN = "\x1b[2J\x1b]0;owned\x07"
NAMES = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "attribute": "\" onmouseover='alert(1)' x=\"",
    "template": "{{ 7 * 191 }}{% raw %}",
    "terminal": f"red{SCREEN}",
    "surrogate": os.fsdecode(b"caf\xe9"),
    "markdown": "[x](javascript:alert(1)) ![y](http://z) | `c` ~~s~~ <b>\n# h $\\x$",
    "latex": r"\input{/etc/passwd}\write18{id} $x^2$ & % # _ { } ~",
    "row": r"[1cm] * \\ \hline",
    "formula": "=HYPERLINK(\"http://z\",\"click\")",
    "minus": "-2+3+cmd|' /C calc'!A0",
    "comment": "<!-- end --><!-- table: * -->",
}  # fmt: skip
COLUMNS = (Column("name", "Name", "a name"), Column("value", "Value"))
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
names = pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))


@names
def test_printable_text_is_one_line_without_control_characters(name):
    shown = printable(name)
    assert shown.encode() and "\n" not in shown and not CONTROL.search(shown)
    assert printable(shown) == shown


@pytest.mark.parametrize("text", ["Müller, 数字 and 😀", "plain", "a\u0301"])
def test_ordinary_text_stays_as_it_is(text):
    assert printable(text) == text


@names
@pytest.mark.parametrize("style", FORMATS)
def test_tables(name, style):
    shown = render(COLUMNS, [{"name": name, "value": 1.5}, {"name": "plain", "value": -2}], style)
    shown.encode()
    assert not CONTROL.search(shown)
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


def test_negative_numbers_are_not_formulas():
    assert [csv_text(t) for t in ("-1.5", "+3", "1e-3", "=1", "-x")] == [
        "-1.5", "+3", "1e-3", "'=1", "'-x",
    ]  # fmt: skip


@names
def test_pages_and_report(name, monkeypatch):
    monkeypatch.setattr("spinal_repro.results.pages.claims_markdown", lambda index: "")
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
    page = render_page(known, [], [])
    page.encode()
    assert "<img src=x" not in page and "onmouseover='" not in page and "1337" not in page
    assert page.count("<script>") == 2, "the page's own"
    for file, text in files(replace(known, titles={"mnist": name})).items():
        text.encode()
        assert "<script" not in text or not file.endswith(".md")


@pytest.mark.parametrize("name", [r"$\frac{1$ and $\undefined{$", NAMES["surrogate"], "$x$"])
def test_class_names_in_a_figure(name, tmp_path):
    """Matplotlib alone raises on half a formula in a class name."""
    draw_confusion(np.eye(2, dtype=np.int64), [name, "b"], name, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_status_and_messages_on_the_terminal(tmp_path, capsys):
    folder = tmp_path / "runs" / f"x{SCREEN}" / "heldout-1" / "s0"
    folder.mkdir(parents=True)
    write_json(folder / "status.json", {"state": SCREEN, "epochs": SCREEN, "pid": 1})
    main(["status", str(tmp_path / "runs")])
    with pytest.raises(SystemExit):
        main(["status", str(tmp_path / SCREEN)])
    said = capsys.readouterr()
    assert "owned" in said.out and "owned" in said.err
    assert "\x1b" not in said.out + said.err


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex to set the table")
def test_latex_sets_them_all(tmp_path):
    rows = [{"name": name, "value": 1} for name in NAMES.values() if printable(name).isascii()]
    table = render(COLUMNS, rows, "latex")
    (tmp_path / "x.tex").write_text(
        f"\\documentclass{{article}}\\begin{{document}}\n{table}\n\\end{{document}}\n"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "x.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-1500:]
