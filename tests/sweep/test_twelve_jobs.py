"""A whole sweep as a user starts it: one job raises, one is killed, one hangs."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from spinal_repro.files import read_json
from spinal_repro.records import describe, run_folders

# A user's own script with a data set that goes wrong where a file says so.
SCRIPT = """
import dataclasses, os, signal, time
from pathlib import Path
import sklearn.datasets  # once, for all jobs
from omegaconf import OmegaConf
from spinal_repro.data.sources import SOURCES

# minutes: the others may take as long as a busy machine wants
OmegaConf.register_new_resolver(
    "limit", lambda job: 0.05 if job == 6 and Path("faults/6").exists() else 60
)


@SOURCES.register("faulty")
def faulty(config, root, download):
    fault = Path(root) / str(config.options["job"])
    what = fault.read_text() if fault.exists() else ""
    if what == "raise":
        raise RuntimeError("out of luck")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(600)
    return SOURCES["digits"](dataclasses.replace(config, options={}), root, download)


if __name__ == "__main__":
    from spinal_repro.cli.train import main

    main()
"""
YAML = "defaults: [digits, _self_]\nname: faulty\nsource: faulty\noptions: {job: 0}\n"
COMMAND = (
    "-m", "--config-dir", "mine", "dataset=faulty", "dataset.options.job=range(0,12)",
    "data.root=faults", "data.limit=40", "recipe.epochs=1", "recipe.batch_size=20",
    "runtime.device=cpu", "runtime.jobs=3", "runtime.threads=1",
    "runtime.time_limit='${limit:${dataset.options.job}}'",
)  # fmt: skip


@pytest.fixture
def script(tmp_path) -> Path:
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    (tmp_path / "mine" / "dataset" / "faulty.yaml").write_text(YAML)
    (tmp_path / "faults").mkdir()
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def sweep(script: Path) -> tuple[int, str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPINAL_", "HYDRA_"))}
    done = subprocess.run(
        [sys.executable, script.name, *COMMAND],
        cwd=script.parent, env={**kept, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=3600,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def states(script: Path) -> Counter[str]:
    return Counter(str(describe(f)["state"]) for f in run_folders(script.parent / "runs"))


def test_twelve_jobs_of_which_three_go_wrong(script):
    faults = {1: "raise", 4: "kill", 6: "hang"}
    for number, what in faults.items():
        (script.parent / "faults" / str(number)).write_text(what)
    code, out, err = sweep(script)
    assert code == 1, out + err
    assert "9 of 12 runs finished" in out
    named = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert len(named) == 3
    for number, line in zip(faults, named, strict=True):
        assert f"dataset.options.job={number}:" in line
    for part, line in zip(
        ("RuntimeError: out of luck", "SIGKILL", "timed out"), named, strict=True
    ):
        assert part in line
    assert states(script) == {"done": 9, "failed": 1, "killed": 1, "timed out": 1}
    (failed,) = (f for f in run_folders(script.parent / "runs") if describe(f)["state"] == "failed")
    status = read_json(failed / "status.json")
    assert "in faulty" in status["traceback"] and "out of luck" in status["message"]
    finished = {f: f.stat().st_mtime_ns for f in (script.parent / "runs").rglob("record.json")}

    for number in faults:
        (script.parent / "faults" / str(number)).unlink()
    code, out, err = sweep(script)
    assert code == 0, out + err
    assert "12 of 12 runs finished" in out and out.count("already finished") == 9
    assert states(script) == {"done": 12}
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
