"""Hydra 1.3 on Python 3.14, whose argparse looks for a % in each help text as it is added."""

import argparse
import sys

import hydra
import pytest

from spinal_repro.cli.help import string_help


def test_hydra_builds_its_parser_where_help_must_be_text(monkeypatch, capsys):
    add = argparse.ArgumentParser.add_argument

    def add_as_python_3_14(parser, *names, **options):
        if "%" in (options.get("help") or ""):
            options["help"] %= {}
        return add(parser, *names, **options)

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", add_as_python_3_14)
    monkeypatch.setattr(sys, "argv", ["spinal-train", "--version"])
    start = hydra.main(config_path=None, version_base="1.3")(lambda config: None)
    if hydra.__version__.startswith("1.3."):
        with pytest.raises((TypeError, ValueError)):
            start()
    with string_help(), pytest.raises(SystemExit) as stop:
        start()
    assert stop.value.code == 0 and "Hydra" in capsys.readouterr().out
    assert argparse.ArgumentParser.add_argument is add_as_python_3_14
