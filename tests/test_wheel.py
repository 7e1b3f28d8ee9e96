"""An installed wheel works from any folder: it carries its configs and both commands."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.xdist_group("wheel")  # one build for all


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a fresh environment that holds the wheel built from this checkout.

    The dependencies are those of the running environment, put behind the wheel on the path.
    """
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(place), str(ROOT)], check=True)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "venv")
    binaries = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", str(binaries / "python")]
    install = [*pip, "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True)
    ours = sysconfig.get_path("purelib", vars={"base": str(place / "venv")})
    (Path(ours) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return binaries


def call(installed: Path, cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPINAL_", "PYTHON"))}
    return subprocess.run(
        [str(installed / command[0]), *command[1:]],
        cwd=cwd,
        env={**kept, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )


def test_a_wheel_trains_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = call(installed, tmp_path, "python", "-c", "import spinal_repro as s; print(s.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(installed.parent), where.stderr
    done = call(installed, tmp_path, "spinal-train", "data.limit=100", "recipe.epochs=1")
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout and "REDUCED BUDGET" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    status = call(installed, tmp_path, "spinal", "status")
    assert status.returncode == 0 and "done" in status.stdout


def test_the_wheel_holds_every_config(installed: Path) -> None:
    shipped = next(installed.parent.glob("lib/**/spinal_repro/configs"))
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert (shipped / path.relative_to(ROOT / "configs")).read_text() == path.read_text()
