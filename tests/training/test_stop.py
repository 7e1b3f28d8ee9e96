"""Signals before there is anything to save, whatever libraries make of them, and second ones."""

import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from stopping import outcome, small

from spinal_repro.errors import UserError
from spinal_repro.files import read_json
from spinal_repro.training import run as run_module
from spinal_repro.training.run import run
from spinal_repro.training.stop import Interrupted

EARLY = "SIGTERM: stopped before there was anything to save; the same command continues"
LINES = 300  # of Python, at which a signal comes; about one in six of those that there are


class Begun(BaseException):
    """There is something to train."""


def begin(*_: Any) -> None:
    raise Begun


@contextmanager
def traced(on_line: Callable[[str, int], None]) -> Iterator[None]:
    """Call with file and number of each line of Python before it runs."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            on_line(frame.f_code.co_filename, frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_a_signal_at_any_line_while_the_configuration_is_resolved(tmp_path, monkeypatch):
    """OmegaConf, which does that, fails in clearing up what it leaves half done."""
    config, resolved, lines, made = small(tmp_path), run_module.resolved, set(), set()
    target: Any = None

    def on_line(*line: Any) -> None:
        nonlocal target
        if target is None:
            lines.add(line)
        elif line == target:
            target = "sent"
            signal.raise_signal(signal.SIGTERM)

    def watched(given: Any) -> Any:
        with traced(on_line):
            return resolved(given)

    monkeypatch.setattr(run_module, "resolved", watched)
    monkeypatch.setattr(run_module, "_run", begin)
    with pytest.raises(Begun):
        run(config)
    assert len(lines) > 2 * LINES
    for target in random.Random(0).sample(sorted(lines), LINES):
        with pytest.raises(Interrupted) as told:
            run(config)
        assert target == "sent" and str(told.value) == EARLY
        made.add(type(told.value.__cause__))
    assert UserError in made, "no library made another error of it"


def broken(*_: Any) -> None:
    """As a library whose clearing up fails on what the signal left half done."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        raise UserError("classes: 'NoneType' object has no attribute") from None


def missing(*_: Any) -> None:
    raise UserError("no such data")


def test_a_signal_that_a_library_makes_an_error_of_is_still_one(tmp_path, monkeypatch):
    config = small(tmp_path)
    config.run_dir.mkdir(parents=True)
    monkeypatch.setattr(run_module, "load_dataset", broken)
    with pytest.raises(Interrupted, match=EARLY):
        run(config)
    assert read_json(config.run_dir / "status.json")["state"] == "interrupted"
    monkeypatch.setattr(run_module, "load_dataset", missing)
    with pytest.raises(UserError, match="no such data"):
        run(config)


def test_a_deadline_that_is_over_stops_at_the_first_step_and_one_set_later_after_an_epoch(tmp_path):
    whole, config = small(tmp_path / "whole"), small(tmp_path / "cut")
    with pytest.raises(Interrupted, match="time limit: stopped after step 1 of 3 in epoch 1"):
        run(config, deadline=time.monotonic())
    seen: list[int] = []

    def look(state: Any) -> float | None:
        seen.append(state.epoch)
        return 0.0 if state.epoch == 2 else None

    with pytest.raises(Interrupted, match="time limit: stopped after epoch 2"):
        run(config, on_epoch=look)
    assert seen == [1, 2]
    assert read_json(config.run_dir / "status.json")["state"] == "interrupted"
    record = run(config, deadline=time.monotonic() + 600).record
    assert outcome(config.run_dir, record) == outcome(whole.run_dir, run(whole).record)


def test_an_error_after_the_deadline_is_still_that_error(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "load_dataset", missing)
    with pytest.raises(UserError, match="no such data"):
        run(small(tmp_path), deadline=time.monotonic())
