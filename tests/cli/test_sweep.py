"""Whole sweeps as a user starts them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from spinal_repro.config.compose import compose
from spinal_repro.errors import EXIT_FAILED, EXIT_INTERRUPTED
from spinal_repro.records.record import read_record
from spinal_repro.records.store import describe, run_folders
from spinal_repro.training.run import run

# A user's own script with a data set that goes wrong where a file says so.
SCRIPT = """
import dataclasses, os, signal, time
from pathlib import Path
from omegaconf import OmegaConf
from spinal_repro.cli.train import main
from spinal_repro.data.sources import SOURCES

# minutes; the others may take as long as a busy machine wants
OmegaConf.register_new_resolver("limit", lambda job: 0.2 if Path(f"hang{job}").exists() else 60)


@SOURCES.register("faulty")
def faulty(config, root, download):
    job = config.options["job"]
    if Path(f"raise{job}").exists():
        raise RuntimeError("out of luck")
    if Path(f"kill{job}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if Path(f"hang{job}").exists():
        time.sleep(600)
    return SOURCES["digits"](dataclasses.replace(config, options={}), root, download)


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


def test_four_jobs_of_which_three_go_wrong(tmp_path):
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    (tmp_path / "mine" / "dataset" / "faulty.yaml").write_text(YAML)
    (tmp_path / "script.py").write_text(SCRIPT)
    faults = [tmp_path / name for name in ("raise0", "kill1", "hang2")]
    for fault in faults:
        fault.touch()
    command = (
        "script.py", "-m", "--config-dir", "mine", "dataset=faulty", *TINY, "recipe.epochs=1",
        "dataset.options.job=0,1,2,3", "runtime.time_limit='${limit:${dataset.options.job}}'",
    )  # fmt: skip
    sweep = start(tmp_path, *command)
    out, err = sweep.communicate(timeout=600)
    assert sweep.returncode == EXIT_FAILED, out + err
    assert "1 failed, 1 killed, 1 timed out, 1 done" in out
    for line in (
        "failed: dataset.options.job=0: RuntimeError: out of luck",
        "killed: dataset.options.job=1: by SIGKILL",
        "timed out: dataset.options.job=2: runtime.time_limit=0.2 minutes",
    ):
        assert f"\n{line}" in f"\n{err}"
    (done,) = (tmp_path / "runs").rglob("record.json")
    written = done.stat().st_mtime_ns

    for fault in faults:
        fault.unlink()
    sweep = start(tmp_path, *command)
    out, err = sweep.communicate(timeout=600)
    assert sweep.returncode == 0, out + err
    assert "3 of 4 runs to do" in out and "4 done" in out
    assert len(list((tmp_path / "runs").rglob("record.json"))) == 4
    assert done.stat().st_mtime_ns == written


def test_ctrl_c_saves_and_the_same_command_finishes_with_the_same_record(tmp_path):
    settings = (*TINY, "recipe.epochs=60", "runtime.threads=1")
    command = ("-m", "spinal_repro.cli.train", "-m", *settings, "seed=0,1", "runtime.jobs=1")
    sweep = start(tmp_path, *command)
    end = time.monotonic() + 300
    while not any("epoch 2/" in log.read_text() for log in tmp_path.glob("runs/*/*/*/log.txt")):
        assert time.monotonic() < end and sweep.poll() is None, sweep.communicate()
        time.sleep(0.05)
    os.killpg(sweep.pid, signal.SIGINT)  # as a terminal sends it
    out, err = sweep.communicate(timeout=300)
    assert sweep.returncode == EXIT_INTERRUPTED, out + err
    assert "1 interrupted, 1 waiting" in out and "the same command continues" in err
    (folder,) = run_folders(tmp_path / "runs")
    assert describe(folder)["state"] == "interrupted" and (folder / "last.pt").is_file()

    sweep = start(tmp_path, *command)
    out, err = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, out + err
    assert "continuing after epoch" in (folder / "log.txt").read_text()
    record = read_record(folder / "record.json")
    alone = run(compose([*settings, "runtime.progress=none", f"runs={tmp_path}/alone"])).record
    for part in ("identity", "history", "selection", "test"):
        assert getattr(record, part) == getattr(alone, part)
