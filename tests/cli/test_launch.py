"""Sweeps through launchers: all jobs are checked first, then each library runs them."""

import json
import os
import signal
import threading
import time

import hydra
import pytest

from spinal_repro.cli.launch import DEFAULT_LAUNCHER, check_jobs, jobs_of, launcher_of
from spinal_repro.config.compose import compose, config_dir
from spinal_repro.config.schema import Config
from spinal_repro.errors import EXIT_FAILED, EXIT_USAGE, UserError
from spinal_repro.records.store import describe, run_folders

SMALL = ["data.limit=60", "recipe.epochs=1", "runtime.progress=none", "runtime.device=cpu"]


@pytest.fixture
def sweep(call):
    return lambda *words: call("spinal-train", "-m", "runtime.threads=1", *words)


@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=joblib"]])
def test_every_job_is_checked_before_the_first_is_started(sweep, here, launcher):
    """All wrong jobs are named, and none is run."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    wrong = ("recipe.optimizer=sgd,sdg", "recipe.epochs=1,0", "seed=0,1")
    ended = sweep(*launcher, *SMALL, *wrong)
    assert ended.code == EXIT_USAGE
    assert ended.err.count("seed=0") == ended.err.count("seed=1") == 3  # of 4 a seed
    assert list(run_folders(here / "runs")) == []


def checked(*arguments: str) -> list[Config]:
    return check_jobs(jobs_of(arguments), compose)


def test_jobs_are_the_product_of_the_choices_and_a_later_override_wins():
    configs = checked("head=fc,spinal", "seed=range(0,2)", "recipe.epochs=1,2", "seed=7")
    assert [(c.head.name, c.recipe.epochs, c.seed) for c in configs] == [
        (head, epochs, 7) for head in ("fc", "spinal") for epochs in (1, 2)
    ]
    cells = ("mnist/cnn_fc", "transfer/stl10_vgg19_bn_spinal")
    configs = checked(f"paper={','.join(cells)}", "seed=0,1")
    assert [(c.cell, c.seed) for c in configs] == [
        (cell, seed) for cell in cells for seed in (0, 1)
    ]
    assert [c.head.name for c in checked("head=glob(*spin*)")] == ["spinal"]
    for wrong, named in (
        (["head=spinal", "head.layers=-1"], "head"),
        (["recipe.lr_rule={name: none}"], "recipe.lr_rule"),
        (["recipe.lr=interval(0, 1)"], "recipe.lr=A,B,C"),
        (["seed=range(0)"], "no jobs"),
    ):
        with pytest.raises(UserError, match=named):
            checked(*wrong)


def test_a_launcher_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'spinal-repro\[slurm\]'"):
        launcher_of(["hydra/launcher=submitit_slurm", "seed=0,1"])
    assert launcher_of(["seed=0"]) == DEFAULT_LAUNCHER


def test_joblib_runs_every_job_though_one_fails(sweep, here):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    # one after the other, which spares starting processes; that of submitit is started below
    arguments = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "recipe.lr=1e30,0.01")
    ended = sweep(*arguments, *SMALL)
    assert ended.code == EXIT_FAILED and "the loss is" in ended.err.splitlines()[-1]
    states = [describe(folder)["state"] for folder in run_folders(here / "runs")]
    assert sorted(states) == ["done", "failed"]


@pytest.mark.slow
def test_a_job_that_is_stopped_is_queued_again_and_finishes(sweep, here):
    """submitit_local, pre-empted: its second process starts the run again, and finishes it."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    runs = here / "runs"

    def preempt() -> None:
        end = time.monotonic() + 300
        while time.monotonic() < end:
            for log in runs.glob("*/*/*/log.txt"):
                if "epoch 2/" in log.read_text():
                    status = json.loads((log.parent / "status.json").read_text())
                    os.kill(status["pid"], signal.SIGUSR2)
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=preempt)
    thread.start()
    small = ("model=flatten", "head=linear", "data.limit=100", "recipe.epochs=60", *SMALL[3:])
    assert sweep("hydra/launcher=submitit_local", *small).code == 0
    thread.join()
    (folder,) = run_folders(runs)
    assert describe(folder)["state"] == "done"
    log = "".join(p.read_text() for p in (runs / ".sweeps/.submitit").glob("*/*_log.*"))
    assert "this job is preempted" in log and "Requeued job" in log


def test_the_launcher_for_a_gpu_partition_asks_for_a_gpu_a_warning_and_requeueing():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    with hydra.initialize_config_dir(str(config_dir().resolve()), version_base="1.3"):
        cfg = hydra.compose("train", ["hydra/launcher=slurm_gpu"], return_hydra_config=True)
    launcher = cfg.hydra.launcher
    assert (launcher.gpus_per_node, launcher.array_parallelism) == (1, 16)
    assert launcher.signal_delay_s > 60 and launcher.max_num_timeout > 0
    assert launcher.additional_parameters.requeue is True
