"""How many threads a run computes with, and that finding out changes nothing."""

import pytest
import torch
from stopping import interrupted

from spinal_repro.config import compose
from spinal_repro.training import threads as threads_module
from spinal_repro.training.run import _prepare, resolved, run
from spinal_repro.training.threads import fastest_threads, settle_threads

SMALL = ("data.limit=60", "recipe.epochs=1", "runtime.progress=none", "runtime.device=cpu")


def small(tmp_path, *overrides: str):
    return compose([*SMALL, f"runs={tmp_path}", *overrides])


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("faster", [1, 2])
def test_auto_takes_the_faster_and_changes_nothing(tmp_path, monkeypatch, two_threads, faster):
    taken = []

    def seconds(trainer, model):
        taken.append(real(trainer, model))
        return 1.0 if torch.get_num_threads() == faster else 2.0

    real = threads_module._seconds
    monkeypatch.setattr(threads_module, "_seconds", seconds)
    found = run(small(tmp_path / "auto", "runtime.threads=auto")).record
    assert len(taken) > 2
    assert found["environment"]["threads"] == found["config"]["runtime"]["threads"] == faster

    said = run(small(tmp_path / "said", f"runtime.threads={faster}")).record
    for key in ("history", "test", "identity"):
        assert found[key] == said[key]
    weights = [
        next((tmp_path / n).rglob("best.safetensors")).read_bytes() for n in ("auto", "said")
    ]
    assert weights[0] == weights[1]


def test_with_one_thread_there_is_nothing_to_find_out(tmp_path, monkeypatch):
    config = resolved(small(tmp_path, "runtime.threads=auto"))
    trainer = _prepare(config, torch.device("cpu")).trainer
    monkeypatch.setattr(threads_module, "_seconds", None)
    assert fastest_threads(trainer) == 1


def test_a_run_keeps_the_number_that_it_began_with(tmp_path, two_threads):
    config = small(tmp_path)
    folder = resolved(config).run_dir
    assert settle_threads(config, folder).runtime.threads == 2
    torch.set_num_threads(1)
    run(config)
    (folder / "record.json").unlink()
    torch.set_num_threads(2)
    for asked, number in {"null": 1, "auto": 1, "2": 2}.items():
        again = small(tmp_path, f"runtime.threads={asked}")
        assert settle_threads(again, folder).runtime.threads == number
        assert torch.get_num_threads() == number


def test_another_number_of_threads_is_said(tmp_path, monkeypatch, capsys):
    folder = interrupted(small(tmp_path, "runtime.threads=1", "recipe.epochs=2"), monkeypatch, 2)
    run(small(tmp_path, "runtime.threads=2", "recipe.epochs=2"))
    torch.set_num_threads(1)
    said = "began with runtime.threads=1 and goes on with 2"
    assert said in capsys.readouterr().err and said in (folder / "log.txt").read_text()
