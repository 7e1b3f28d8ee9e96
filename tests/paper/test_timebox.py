"""Which run comes next when time is limited."""

import time
from pathlib import Path

import pytest
from helpers.composing import composed

from spinal_repro.paper.timebox import DEADLINE, Run, TimeBox

EPOCHS = 10


def planned(cell: str, done: int = 0, state: str = "") -> Run:
    return Run(cell, composed("runtime.device=cpu", f"recipe.epochs={EPOCHS}"), Path(), done, state)


@pytest.fixture
def box(monkeypatch):
    """Make a box whose clock stands at 0: cells take 1 s or 5 s an epoch."""
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)

    def make(seconds: float, *runs: Run) -> TimeBox:
        made = TimeBox(runs, seconds)
        made.epoch_seconds = {"quick": 1.0, "slow": 5.0}
        return made

    return make


def test_the_rest_of_a_run_is_what_it_needs(box):
    assert box(9.0).needs(planned("slow", done=4)) == 6 * 5.0
    assert box(9.0).needs(planned("new")) is None


@pytest.mark.parametrize("seconds, expected", [(50, 0), (49, 1), (10, 1), (9, 0), (4, 1), (0.5, 2)])
def test_a_run_that_fits_comes_first_and_else_one_whose_epoch_fits(box, seconds, expected):
    runs = [planned("slow"), planned("quick")]
    chosen = box(seconds, *runs).next()
    assert chosen is (runs[expected] if expected < 2 else None)


def test_what_has_ended_is_not_started_and_what_is_unknown_is_tried(box):
    runs = [planned("quick", state="done"), planned("slow", state=DEADLINE), planned("new")]
    assert box(60, *runs).next() is runs[2]
    assert box(60, *runs[:2]).next() is None and box(0, *runs).next() is None
