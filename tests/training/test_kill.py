"""SIGKILL and signals at random moments of real processes, see ``scripts/kill_test.py``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_test.py"


@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.skipif(not SCRIPT.is_file(), reason="scripts/ is in the repository only")
def test_a_run_that_is_killed_again_and_again_is_the_same(kills):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), f"--kills={kills}", "--seed=3"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counted = json.loads(done.stdout)
    assert counted["kills"] >= kills and counted["runs compared"] >= 1
