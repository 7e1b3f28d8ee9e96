"""SIGKILL at drawn points of real processes; see the script for what is drawn and compared."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_test.py"
KILLS = 25  # for each seed; the script by itself takes as many as it is told


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
@pytest.mark.parametrize("seed", [3, 4])
def test_killed_again_and_again(seed):
    if not SCRIPT.is_file():
        pytest.skip("scripts/ is in the repository, not in the source archive")
    root = str(SCRIPT.parents[1])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", str(KILLS), "--seed", str(seed)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        timeout=7200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["kills"] >= KILLS
