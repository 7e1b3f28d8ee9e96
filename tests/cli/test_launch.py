"""Sweeps through launchers: checked before, reported after, put in the queue again when stopped."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from spinal_repro.cli.launch import Jobs, check_jobs, launcher_of, requeued
from spinal_repro.cli.train import _main
from spinal_repro.config import config_dir
from spinal_repro.errors import EXIT_FAILED, EXIT_USAGE, UserError
from spinal_repro.records import describe, run_folders
from spinal_repro.training.stop import Interrupted, Stop

SMALL = ["data.limit=60", "recipe.epochs=1", "runtime.progress=none", "runtime.device=cpu"]


@pytest.fixture
def sweep(monkeypatch, tmp_path):
    def start(*arguments: str) -> int:
        full = ["-m", f"runs={tmp_path / 'runs'}", "runtime.threads=1", *arguments]
        monkeypatch.setattr(sys, "argv", ["spinal-train", *full])
        monkeypatch.chdir(tmp_path)
        return _main(full)

    return start


def test_every_job_is_checked_before_the_first_is_started(sweep, tmp_path, capsys):
    """Names, values, options of heads, optimizers: all wrong jobs are named, and none is run."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    wrong = ("recipe.optimizer=sgd,sdg", "recipe.epochs=1,0", "seed=0,1")
    assert sweep("hydra/launcher=joblib", *SMALL, *wrong) == EXIT_USAGE
    printed = capsys.readouterr().err
    assert "no job was started" in printed and "did you mean 'sgd'" in printed
    assert printed.count("seed=0") == printed.count("seed=1") == 3  # of 4 a seed
    assert not (tmp_path / "runs").exists()


def test_what_is_checked():
    configs = check_jobs(["-m", "paper=mnist/cnn_fc,transfer/stl10_vgg19_bn_spinal", "seed=0,1"])
    assert [(c.cell, c.seed) for c in configs] == [
        (cell, seed)
        for cell in ("mnist/cnn_fc", "transfer/stl10_vgg19_bn_spinal")
        for seed in (0, 1)
    ]
    for wrong in ("head=spinal head.layers=-1", "recipe.lr_rule={name: none}", "head.hidden=x"):
        with pytest.raises(UserError, match="no job was started"):
            check_jobs(wrong.split(" ") if "{" not in wrong else [wrong])
    with pytest.raises(UserError, match="one by one"):
        check_jobs(["head=glob(*)"])


def test_a_launcher_that_is_not_installed_is_named(sweep, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert sweep("hydra/launcher=submitit_slurm", "seed=0,1") == EXIT_USAGE
    assert "pip install 'spinal-repro[slurm]'" in capsys.readouterr().err
    assert launcher_of(["seed=0"]) is None


def test_joblib_reports_every_job(sweep, tmp_path, capsys):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    # one after the other, which spares starting processes; those of submitit are started below
    arguments = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "recipe.lr=0.01,1e30")
    assert sweep(*arguments, *SMALL) == EXIT_FAILED
    printed = capsys.readouterr()
    assert "2 jobs checked" in printed.out and "1 of 2 runs finished" in printed.out
    assert "the loss is" in printed.err.splitlines()[-1]
    states = [describe(folder)["state"] for folder in run_folders(tmp_path / "runs")]
    assert sorted(states) == ["done", "failed"]
    assert [path.name for path in (tmp_path / "runs" / ".sweeps").iterdir()] == ["multirun.yaml"]


def signal_when_trained(runs: Path) -> threading.Thread:
    """Send a job the signal of submitit as soon as it has a checkpoint."""

    def watch() -> None:
        deadline = time.monotonic() + 300
        while not (found := [*runs.glob("*/*/*/last.pt")]) and time.monotonic() < deadline:
            time.sleep(0.01)
        status = json.loads((found[0].parent / "status.json").read_text())
        os.kill(status["pid"], signal.SIGUSR2)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_job_that_is_stopped_is_queued_again_and_finishes(sweep, tmp_path, capsys):
    """submitit_local, pre-empted: its second process continues what the first one saved."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    thread = signal_when_trained(tmp_path / "runs")
    arguments = ["hydra/launcher=submitit_local", "model=flatten", "head=linear"]
    assert sweep(*arguments, "data.limit=100", "recipe.epochs=200", *SMALL[2:]) == 0
    thread.join()
    assert "1 of 1 runs finished" in capsys.readouterr().out
    (folder,) = run_folders(tmp_path / "runs")
    assert describe(folder)["state"] == "done"
    assert "continuing after epoch" in (folder / "log.txt").read_text()
    log = "".join(p.read_text() for p in (tmp_path / "runs/.sweeps/.submitit").glob("*/*_log.*"))
    assert "this job is preempted" in log and "Requeued job" in log


def test_the_signal_of_submitit_lets_a_run_save_first(monkeypatch):
    """Where a run listens to SIGUSR1; submitit's handler is called after it, once."""
    calls = []
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    before = [(number, signal.getsignal(number)) for number in (signal.SIGUSR1, signal.SIGUSR2)]
    try:
        signal.signal(signal.SIGUSR2, lambda *_: calls.append("requeued"))
        with pytest.raises(KeyboardInterrupt), requeued():
            signal.signal(signal.SIGUSR1, lambda *_: calls.append("asked"))
            signal.raise_signal(signal.SIGUSR2)
            assert calls == ["asked"]
            calls.append("saved")
            raise KeyboardInterrupt("SIGUSR1: stopped after epoch 3")
        assert calls == ["asked", "saved", "requeued"]
        with pytest.raises(Interrupted, match="stopped after 3"), requeued(), Stop() as stop:
            stop.deferred = True
            signal.raise_signal(signal.SIGUSR2)
            assert stop.asked == "SIGUSR1" and calls.count("requeued") == 1
            stop.check("after 3")
        assert calls.pop() == "requeued"
        signal.signal(signal.SIGUSR2, lambda *_: sys.exit(-1))  # as submitit's ends, whenever told
        with pytest.raises(SystemExit, match="-1"), requeued(), Stop():
            signal.raise_signal(signal.SIGUSR2)
        with pytest.raises(KeyboardInterrupt), requeued():  # Ctrl-C or scancel: not our signal
            raise KeyboardInterrupt
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def test_outcomes_of_other_processes_are_collected_once(tmp_path):
    jobs = Jobs()
    jobs.folder = tmp_path / "jobs"
    jobs.folder.mkdir()
    jobs.append(("here", ""))
    code = (
        "import pathlib, sys; from spinal_repro.cli.launch import Jobs; jobs = Jobs();"
        "jobs.folder = pathlib.Path(sys.argv[1]); jobs._home = ('another machine', 1);"
        "jobs.append(('there', 'failed'))"
    )
    subprocess.run([sys.executable, "-c", code, str(jobs.folder)], check=True)
    jobs.collect()
    assert jobs == [("here", ""), ("there", "failed")] and not jobs.folder.exists()
    jobs.collect()
    assert len(jobs) == 2


def test_the_launcher_for_a_gpu_partition_is_what_sbatch_takes(tmp_path, monkeypatch):
    """An array job, one GPU each, with a signal before the end and requeueing."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    from hydra import compose, initialize_config_dir
    from submitit import SlurmExecutor

    with initialize_config_dir(str(config_dir().resolve()), version_base="1.3"):
        cfg = compose("train", ["hydra/launcher=slurm_gpu"], return_hydra_config=True)
    launcher = OmegaConf.to_container(cfg.hydra.launcher)
    assert isinstance(launcher, dict) and launcher["max_num_timeout"] > 0
    sbatch = f'#!/bin/sh\ncp "$1" {tmp_path}/submitted\necho Submitted batch job 1\n'
    for name, text in {"srun": "#!/bin/sh\n", "sbatch": sbatch}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    executor = SlurmExecutor(tmp_path)
    names = {"gpus_per_node", "cpus_per_task", "array_parallelism", "signal_delay_s"}
    executor.update_parameters(
        time=launcher["timeout_min"],
        additional_parameters=launcher["additional_parameters"],
        **{name: launcher[name] for name in names},
    )
    executor.map_array(abs, range(40))
    text = (tmp_path / "submitted").read_text()
    flags = {line.removeprefix("#SBATCH --") for line in text.splitlines() if "#SBATCH" in line}
    assert {"requeue", "gpus-per-node=1", "array=0-39%16", "signal=USR2@180"} <= flags
