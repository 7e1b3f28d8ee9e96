"""Files that people exchange: they run no code, and their texts stay texts.

Weights: see models/test_pretrained.py; archives: see data/test_assemble.py.
"""

import copy
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
from spinal_repro.paper.claims import Claim
from spinal_repro.records.compare import Difference
from spinal_repro.records.plots import draw_confusion
from spinal_repro.records.record import stored_config
from spinal_repro.results.figures import Drawn
from spinal_repro.results.pages import files
from spinal_repro.results.report import render as render_page
from spinal_repro.training.setup import check_parts


def test_yaml_makes_no_objects(tmp_path):
    path, made = tmp_path / "config.yaml", tmp_path / "made"
    path.write_text(f"x: !!python/object/apply:os.mkdir ['{made}']")
    yaml.unsafe_load(path.read_text())
    made.rmdir()
    with pytest.raises(UserError, match=r"config\.yaml"):
        read_yaml(path)
    assert not made.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("recipe._target_", "os.system"), ("model._target_", "os.system"),
        ("_target_", "os.system"), ("dataset.name", "../../x"),
        ("model.name", "hf_hub:somebody/model"), ("protocol.name", "a/b"),
    ],
)  # fmt: skip
def test_a_stored_configuration_names_no_code_and_no_other_folder(key, value):
    stored = copy.deepcopy(composed().to_dict())
    group, _, option = key.rpartition(".")
    (stored[group] if group else stored)[option] = value
    with pytest.raises(UserError, match="'_target_'" if option == "_target_" else re.escape(key)):
        config = stored_config(stored)
        check_parts(config)


# Names from records in tables, pages, figures and the terminal

SCREEN = "\x1b[2J\x1b]0;owned\x07"
NAMES = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>\" onmouseover='alert(1)' x=\"",
    "template": "{{ 7 * 191 }}{% raw %}",
    "surrogate": os.fsdecode(b"caf\xe9"),
    "comment": "<!-- end --><!-- table: * -->",
}


def test_formulas_are_quoted_in_csv_and_control_characters_escaped():
    kept = ["-1.5", "+3", "1e-3", "Müller, 数字 and 😀", "plain"]
    assert [csv_text(text) for text in (*kept, "=1", "-x", "@y")] == [*kept, "'=1", "'-x", "'@y"]
    assert [printable(text) for text in kept] == kept
    for text in (SCREEN, *NAMES.values(), "a\nb\u202e"):
        shown = printable(text)
        assert shown.encode() and not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", shown)


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
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
    claim = Claim(name, name, "accuracy", note=name, verdict="supported", evidence=name, name=name)
    known = findings([fc, spinal], results, {"mnist/fc": {}, "mnist/sp": {}})
    known = replace(known, claims=[claim])
    page = render_page(known, [Drawn("a", name, name, b"<svg/>", b"")])
    page.encode()
    assert "<img src=x" not in page and "onmouseover='" not in page and "1337" not in page
    assert page.count("<script>") == 2, "the page's own"
    for file, text in files(known).items():
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
