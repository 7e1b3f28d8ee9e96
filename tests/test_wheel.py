"""An installed wheel works from any folder: it has its configs and both commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of this checkout, installed before all other packages."""
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(place), str(ROOT)], check=True)
    return place


def call(installed: Path, cwd: Path, command: str, *arguments: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPINAL_", "PYTHON"))}
    done = subprocess.run(
        [str(installed / "bin" / command), *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_wheel_has_both_commands_and_every_config(installed, tmp_path):
    shipped = installed / "spinal_repro" / "configs"
    for path in (ROOT / "configs").rglob("*.*"):
        assert (shipped / path.relative_to(ROOT / "configs")).read_bytes() == path.read_bytes()
    printed = call(installed, tmp_path, "spinal-train", "--cfg", "job", "paper=mnist/vgg5_spinal")
    assert "name: vgg5" in printed
    assert "mnist/vgg5_spinal" in call(installed, tmp_path, "spinal", "paper", "list", "mnist")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_installed_wheel_trains_from_an_empty_folder(installed, tmp_path):
    printed = call(installed, tmp_path, "spinal-train", "data.limit=100", "recipe.epochs=1")
    assert "test accuracy" in printed and "REDUCED BUDGET" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert "done" in call(installed, tmp_path, "spinal", "status")
