"""``spinal paper run``: the runs that fit are done, and nothing of the others is lost."""

import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.composing import composed
from helpers.idx_files import write_dataset
from helpers.interrupting import results, signal_in_step

from spinal_repro.errors import EXIT_FAILED, EXIT_INTERRUPTED
from spinal_repro.paper import timebox
from spinal_repro.records.record import read_record
from spinal_repro.records.store import run_folders
from spinal_repro.training import engine

SETTINGS = (
    "dataset.train_size=96", "dataset.test_size=40", "recipe.batch_size=32", "runtime.device=cpu",
    "runtime.progress=none",
)  # fmt: skip
PAIR = ("mnist/cnn_spinal8", "mnist/cnn_fc")
STEPS = 3  # an epoch


@pytest.fixture
def command(tmp_path, monkeypatch, call) -> Callable[..., Any]:
    """The command on a small MNIST of 96 and 40 images."""
    write_dataset(tmp_path / "data", composed("dataset=mnist").dataset, 96, 40)
    monkeypatch.setenv("SPINAL_DATA", str(tmp_path / "data"))
    return lambda *words, minutes=9.0: call(
        "spinal", "paper", "run", *SETTINGS, *words, f"--minutes={minutes}"
    )


def state(out: str, cell: str, seed: int) -> str:
    """Epochs and what follows them in the row of a run."""
    (line,) = (x for x in out.splitlines() if x.split()[:2] == [cell, str(seed)])
    return line.split(maxsplit=2)[2]


class Clock:
    """Time that passes faster: every training step takes some seconds more, by the cell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: dict[str, float] = {}
        self.trained: list[tuple[str, int]] = []  # cell and seed of each step
        self._late, self._now = 0.0, ("", 0)
        monotonic, train, one_run = time.monotonic, engine.training_loss, timebox.train

        def run(config: Any, *given: Any) -> Any:
            self._now = config.cell, config.seed
            return one_run(config, *given)

        def training_loss(*given: Any) -> Any:
            self._late += self.seconds.get(self._now[0], 0.0)
            self.trained.append(self._now)
            return train(*given)

        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + self._late)
        monkeypatch.setattr(timebox, "train", run)
        monkeypatch.setattr(engine, "training_loss", training_loss)

    def runs(self) -> list[tuple[str, int]]:
        """Runs that were trained, in order."""
        return list(dict.fromkeys(self.trained))


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def outcomes(runs: Path) -> dict[str, Any]:
    return {"/".join(folder.parts[-3:]): results(folder) for folder in run_folders(runs)}


def summary(archive: str = "runs/paper-run.zip") -> str:
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        return file.read("summary.md").decode()


def test_pairs_seed_by_seed_and_an_archive_that_is_accepted(command, clock, call):
    words = (*PAIR, "recipe.epochs=2", "--seeds=1,0", "--out=out.zip")
    ended = command(*words)
    assert ended.code == 0 and "4 of 4 runs finished, 0 failed" in ended.out
    assert clock.runs() == [(cell, seed) for seed in (1, 0) for cell in PAIR]
    text = summary("out.zip")
    assert "highest accuracy on the TEST set" in text and "2 of 8 epochs" in text
    assert text.count("| 2/2 |") == 4 and "To resume" not in text
    for path in Path("runs").rglob("record.json"):
        accuracy = read_record(path).test.selected.accuracy
        assert f"| {100 * accuracy:.2f} |" in text
    zipfile.ZipFile("out.zip").extractall("there")
    sent = list(Path("there").glob("records/*/*.json"))
    assert call("spinal", "records", "add", *map(str, sent), "--out=added").code == 0
    assert len(sent) == len(list(Path("added").rglob("*.json"))) == 4
    again = command(*words)
    assert again.code == 0 and len(clock.trained) == 4 * 2 * STEPS, "trained twice"
    assert again.out.count("already finished") == 4


def test_the_run_at_the_deadline_is_saved_and_the_same_command_continues(command, clock):
    words = (*PAIR, "recipe.epochs=3", "--seeds=0")
    clock.seconds = dict.fromkeys(PAIR, 60.0)  # 3 minutes an epoch
    ended = command(*words, minutes=4.5)
    assert ended.code == EXIT_INTERRUPTED
    assert clock.trained == [(PAIR[0], 0)] * 3 + [(PAIR[1], 0)] * 2  # another epoch does not fit
    for cell, epochs in zip(PAIR, ("1/3", "0/3"), strict=True):
        found = state(ended.out, cell, 0)
        assert found.startswith(epochs) and "deadline" in found
    text = summary()
    assert "0 of 2 runs finished" in text and "recipe.epochs=3" in text and "--minutes=4.5" in text
    clock.seconds.clear()
    assert command(*words, minutes=4.5).code == 0
    assert clock.trained[5:] == [(PAIR[0], 0)] * 6 + [(PAIR[1], 0)] * 9
    cut = outcomes(Path("runs"))
    assert command(*words, "--runs=whole").code == 0  # the same runs without interruption
    assert len(cut) == 2 and cut == outcomes(Path("whole"))


def test_a_run_that_fails_stops_no_other(command, clock):
    ended = command("mnist/kmnist_cnn_fc", PAIR[1], "recipe.epochs=1", "--seeds=0-1")
    assert ended.code == EXIT_FAILED and "2 of 4 runs finished, 2 failed" in ended.out
    assert clock.runs() == [(PAIR[1], 0), (PAIR[1], 1)]
    assert summary().count("| failed: ") == 2


@pytest.mark.parametrize(
    ("step", "save_every", "done", "saved"), [(5, 1000, 0, 2), (14, 0, 1, 1)]
)  # runs finished, and epochs saved of the next one
def test_a_signal_saves_and_ends_with_table_and_archive(
    command, monkeypatch, step, save_every, done, saved
):
    words = (*PAIR, "recipe.epochs=3", f"runtime.save_every={save_every}")
    signal_in_step(monkeypatch, step)
    ended = command(*words)
    assert ended.code == EXIT_INTERRUPTED
    found = state(ended.out, PAIR[done], 0)
    assert found.startswith(f"{saved}/3") and "SIGTERM" in found
    assert "stopped by SIGTERM" in summary() and f"{done} of 2 runs finished" in summary()
    assert command(*words).code == 0 and "2 of 2 runs finished" in summary()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([PAIR[0], "others/mura_vgg16_fc"], "MURA"),
        ([*PAIR, "recipe.epoch=2"], "recipe.epochs"),
        ([*PAIR, "seed=3"], "--seeds"),
        (["recipe.epochs=2"], "name a cell"),
        ([*PAIR, "--seeds=4-1"], "4-1"),
        ([*PAIR, "--out=nowhere/out.zip"], "--out"),
        ([*PAIR, "--minutes=-1"], "--minutes"),
        ([*PAIR, "recipe.optimizer=nosuch"], "nosuch"),
        ([*PAIR, "runtime.device=cuda:99"], "runtime.device"),
    ],
)
def test_a_wrong_command_line_starts_nothing(call, here, words, named):
    ended = call("spinal", "paper", "run", "--minutes=1", *words)
    assert ended.code == 2 and named in ended.err and "Traceback" not in ended.err
    assert not list(here.iterdir())
