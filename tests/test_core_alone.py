"""The core needs none of the extras: with all of them out of reach, it trains and makes tables."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# what a package is imported as, where it is not called so
MODULES = {
    "hydra-submitit-launcher": ("submitit", "hydra_plugins.hydra_submitit_launcher"),
    "mlflow-skinny": ("mlflow",),
    "hydra-joblib-launcher": ("hydra_plugins.hydra_joblib_launcher",),
}


def modules_of_the_extras() -> list[str]:
    found = []
    for extra, packages in PROJECT["optional-dependencies"].items():
        for package in packages if extra != "test" else ():
            name = re.split(r"[\[<>=~! ]", package)[0]
            if name != PROJECT["name"]:
                found += MODULES.get(name, (name.replace("-", "_"),))
    return found


BLOCKED = """
import sys
names = {names!r}

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        absent = any(name == n or name.startswith(n + ".") for n in names)
        return None if absent else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import pkgutil, spinal_repro
for module in pkgutil.walk_packages(spinal_repro.__path__, "spinal_repro."):
    __import__(module.name)
from spinal_repro.cli.train import _main
sys.argv[1:] = {arguments!r}
raise SystemExit(_main(sys.argv[1:]))
"""


def test_it_trains_with_every_extra_out_of_reach(tmp_path):
    names = modules_of_the_extras()
    assert {"submitit", "matplotlib"} <= set(names)
    small = ["data.limit=60", "recipe.epochs=1", "runtime.device=cpu"]
    arguments = [f"runs={tmp_path / 'runs'}", *small]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(names=names, arguments=arguments)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
