"""SIGKILL and signals at random moments of real processes, see ``scripts/kill_test.py``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_test.py"
KILLS = 8  # the script by itself makes 60


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been():
    if not SCRIPT.is_file():
        pytest.skip("scripts/ is in the repository, not in the source archive")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", str(KILLS), "--seed", "3"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counted = json.loads(done.stdout)
    assert counted["kills"] >= KILLS and counted["runs compared"] >= 1
