"""Signals before there is anything to save, whatever libraries make of them, and second ones."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import pytest
from stopping import SMALL, outcome, small

from spinal_repro.cli import train as cli
from spinal_repro.errors import EXIT_INTERRUPTED, UserError
from spinal_repro.files import read_json
from spinal_repro.sweep import worker
from spinal_repro.sweep.shares import Shares
from spinal_repro.sweep.supervisor import supervise
from spinal_repro.training import run as run_module
from spinal_repro.training.run import run
from spinal_repro.training.stop import Interrupted, Stop

EARLY = "SIGTERM: stopped before there was anything to save; the same command continues"
LINES = 300  # of Python, at which a signal comes; about one in six of those that there are


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals as POSIX has them")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_second_signal_ends_the_process(name):
    code = (
        "import signal, time\n"
        "from spinal_repro.sweep.supervisor import LOOK_EVERY\n"
        "from spinal_repro.training.stop import AT_ONCE, Stop\n"
        f"signal.signal(signal.{name}, signal.SIG_DFL)\n"
        "with Stop() as stop:\n"
        "    stop.deferred = True\n"
        f"    signal.raise_signal(signal.{name})\n"
        "    time.sleep(LOOK_EVERY)\n"
        f"    signal.raise_signal(signal.{name})\n"  # passed on by a launcher: not counted
        "    print(stop.asked, flush=True)\n"
        "    time.sleep(AT_ONCE + 0.1)\n"
        f"    signal.raise_signal(signal.{name})\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-getattr(signal, name), f"{name}\n"), done.stderr


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


@pytest.mark.parametrize("place", ["expand", "validate", "check_overrides"])
def test_the_command_tells_it_as_one(tmp_path, monkeypatch, capsys, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, place, broken)
    monkeypatch.setattr(sys, "argv", ["spinal-train"])
    assert cli._main([*SMALL, "hydra.run.dir=."]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == f"spinal-train: {EARLY}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")
def test_a_job_tells_it_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "resolved", broken)
    config, context = small(tmp_path), multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    job = context.Process(target=worker.work, args=(config, config.run_dir, 1, None, send))
    job.start()
    send.close()
    assert receive.recv() == {"state": "interrupted", "message": EARLY}
    job.join()


def test_a_signal_that_was_swallowed_begins_nothing_more(tmp_path, monkeypatch, capsys):
    """As `torch._C._c10d_init` swallows it while torch is imported."""

    def swallow(*given: Any) -> Any:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        return validate(*given)

    validate = cli.validate
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "validate", swallow)
    monkeypatch.setattr(sys, "argv", ["spinal-train"])
    assert cli._main([*SMALL, "hydra.run.dir=."]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == f"spinal-train: {EARLY}\n"
    assert not (tmp_path / "runs").exists()
    with pytest.raises(Interrupted, match=EARLY), Stop():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        supervise([], Shares(1, (None,)), print)


def test_a_signal_at_the_end_of_one_job_stops_those_after_it(tmp_path, monkeypatch, capsys):
    """Where one process does them all."""

    def told(*given: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return write_record(*given)

    write_record = run_module.write_record
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "write_record", told)
    monkeypatch.setattr(sys, "argv", ["spinal-train"])
    arguments = ["hydra/launcher=basic", "seed=0,1", "hydra.sweep.dir=."]
    assert cli._main(["-m", *SMALL, *arguments]) == EXIT_INTERRUPTED
    out, err = capsys.readouterr()
    assert "1 of 1 runs finished" in out and "SIGTERM: stopped between two runs" in err
    assert len(list((tmp_path / "runs").rglob("record.json"))) == 1


ENDING = """
import os, signal, time
import torch  # which takes its time to end
from spinal_repro.cli import train

def told_on(arguments):
    ending = os.getpid()
    if os.fork() == 0:
        try:
            while True:
                os.kill(ending, signal.{name})
                time.sleep(0.02)
        finally:
            os._exit(0)
    return {code}

train._main = told_on
train.main()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
@pytest.mark.parametrize("code", [0, EXIT_INTERRUPTED])
def test_signals_while_the_process_ends_change_no_code(name, code):
    """PyTorch takes a second for that, in which Python has given up its own handlers."""
    done = subprocess.run([sys.executable, "-c", ENDING.format(name=name, code=code)])
    assert done.returncode == code


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
