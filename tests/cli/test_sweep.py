"""Whole sweeps as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spinal_repro.config.compose import compose
from spinal_repro.errors import EXIT_FAILED, EXIT_INTERRUPTED
from spinal_repro.records.record import read_record
from spinal_repro.records.store import describe, run_folders
from spinal_repro.training.resolve import resolved
from spinal_repro.training.run import run

# A user's own script with a data set that fails while a file exists.
SCRIPT = """
import dataclasses
from pathlib import Path
from spinal_repro.cli.train import main
from spinal_repro.data.sources import SOURCES


@SOURCES.register("faulty")
def faulty(config, root, download):
    if Path(f"raise{config.options['job']}").exists():
        raise RuntimeError("out of luck")
    return SOURCES["digits"](dataclasses.replace(config, options={}), root, download)


if __name__ == "__main__":
    main()
"""
# The same, with slow steps while a file exists.
SLOW = """
import time
from pathlib import Path
from spinal_repro.cli.train import main
from spinal_repro.training import engine

step = engine.training_step


def slow(*given):
    time.sleep(0.2 * Path("slow").exists())
    return step(*given)


engine.training_step = slow
if __name__ == "__main__":
    main()
"""
YAML = "defaults: [digits, _self_]\nname: faulty\nsource: faulty\noptions: {job: 0}\n"
TINY = ("model=flatten", "data.limit=96", "recipe.batch_size=8", "runtime.device=cpu")


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPINAL_", "HYDRA_"))}
    return subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=kept, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(sweep: subprocess.Popen[str], code: int) -> str:
    """What a sweep printed; it must end with this code."""
    printed = "\n".join(sweep.communicate(timeout=600))
    assert sweep.returncode == code, printed
    return printed


@pytest.mark.slow
def test_a_job_that_fails_is_run_again_by_the_same_command(tmp_path):
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    (tmp_path / "mine" / "dataset" / "faulty.yaml").write_text(YAML)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "raise0").touch()
    command = (
        "script.py", "-m", "--config-dir", "mine", "dataset=faulty", *TINY, "recipe.epochs=1",
        "dataset.options.job=0,1",
    )  # fmt: skip
    printed = ended(start(tmp_path, *command), EXIT_FAILED)
    assert "1 failed, 1 done" in printed
    assert "\nfailed: dataset.options.job=0: RuntimeError: out of luck" in printed
    (done,) = (tmp_path / "runs").rglob("record.json")
    written = done.stat().st_mtime_ns

    (tmp_path / "raise0").unlink()
    assert "1 of 2 runs left" in ended(start(tmp_path, *command), 0)
    assert len(list((tmp_path / "runs").rglob("record.json"))) == 2
    assert done.stat().st_mtime_ns == written


def test_ctrl_c_saves_and_the_same_command_finishes_with_the_same_record(tmp_path):
    settings = (*TINY, "recipe.epochs=40", "runtime.threads=1")
    (tmp_path / "script.py").write_text(SLOW)
    (tmp_path / "slow").touch()
    command = ("script.py", "-m", *settings)
    sweep = start(tmp_path, *command)
    end = time.monotonic() + 300
    while not any("epoch 2/" in log.read_text() for log in tmp_path.glob("runs/*/*/*/log.txt")):
        assert time.monotonic() < end and sweep.poll() is None, sweep.communicate()
        time.sleep(0.05)
    os.killpg(sweep.pid, signal.SIGINT)  # as a terminal sends it
    assert "1 interrupted" in ended(sweep, EXIT_INTERRUPTED)
    (folder,) = run_folders(tmp_path / "runs")
    assert describe(folder)["state"] == "interrupted" and (folder / "last.pt").is_file()

    (tmp_path / "slow").unlink()
    ended(start(tmp_path, *command), 0)
    assert "resuming after epoch" in (folder / "log.txt").read_text()
    record = read_record(folder / "record.json")
    alone = run(compose([*settings, "runtime.progress=none", f"runs={tmp_path}/alone"])).record
    for part in ("identity", "history", "selection", "test"):
        assert getattr(record, part) == getattr(alone, part)


PHOTOS = (
    "dataset=folder", "data.root=photos", "dataset.image_size=16", "model=flatten", "head=linear",
    "recipe=sgd", "recipe.mean=[0.5]", "recipe.std=[0.5]", "recipe.epochs=1", "runtime.device=cpu",
)  # fmt: skip


def two_at_once(folder: Path, tracker: str) -> str:
    """What the first sweep of two seeds prints, whose jobs need the same files at the same time."""
    settings = (*PHOTOS, f"tracker={tracker}", "runtime.threads=1", "runtime.jobs=2", "seed=0,1")
    return ended(start(folder, "-m", "spinal_repro.cli.train", "-m", *settings), 0)


@pytest.mark.parametrize("tracker", ["mlflow", pytest.param("wandb", marks=pytest.mark.slow)])
def test_the_first_sweep_reports_every_run_to_its_tracker(photos, monkeypatch, tracker):
    """Of a new folder of runs, with its store and its cache of decoded images."""
    library = pytest.importorskip(tracker)
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    (photos / "runs/.mlflow").mkdir(parents=True)
    (photos / "runs/.mlflow/mlflow.partial").write_bytes(b"left by Ctrl-C in an earlier first run")
    printed = two_at_once(photos, tracker)
    assert "2 done" in printed and "warning" not in printed
    runs = sorted(run_folders(photos / "runs"))
    known = [json.loads((run / "tracker.json").read_text())[tracker] for run in runs]
    assert [sorted(memory) for memory in known] == [["epoch", "id"]] * 2
    assert [memory["epoch"] for memory in known] == [1, 1]
    assert len({memory["id"] for memory in known}) == 2
    kinds = [path.suffix for path in (photos / "runs/.cache").iterdir()]
    assert kinds.count(".npy") == 2 and ".partial" not in kinds  # of train with val, and of test
    if tracker == "mlflow":
        database = f"sqlite:///{photos / 'runs/.mlflow/mlflow.db'}"
        client = library.MlflowClient(tracking_uri=database)
        experiment = client.get_experiment_by_name("spinal").experiment_id
        told = client.search_runs([experiment])
        assert {run.data.tags["spinal.id"] for run in told} == {m["id"] for m in known}
        assert [run.info.status for run in told] == ["FINISHED"] * 2


def test_a_sweep_says_which_jobs_lost_their_tracker(photos, monkeypatch):
    pytest.importorskip("tensorboard")
    overrides = [*PHOTOS[:1], f"data.root={photos / 'photos'}", *PHOTOS[2:], "seed=1"]
    lost = photos / resolved(compose(overrides)).run_dir / "tensorboard"
    lost.parent.mkdir(parents=True)
    lost.write_text("a file where the tracker needs a folder")
    for _ in range(2):  # also when nothing is left to train
        printed = two_at_once(photos, "tensorboard")
        assert "2 done" in printed and "seed=1: tracker tensorboard failed" in printed
        assert "seed=0: tracker" not in printed
