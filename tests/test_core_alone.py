"""The core needs no extra: without any a run trains; commands that need one name it."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
# packages that are imported under another name
MODULES = {
    "hydra-submitit-launcher": ["submitit", "hydra_plugins.hydra_submitit_launcher"],
    "hydra-joblib-launcher": ["hydra_plugins.hydra_joblib_launcher"],
    "mlflow-skinny": ["mlflow"],
}
CODE = """
import sys
names = {names!r}
sys.modules.update(dict.fromkeys(names))  # importing them fails as if they were not installed
from spinal_repro.cli.train import main
sys.argv = ["spinal-train", "data.limit=60", "recipe.epochs=1", "runtime.device=cpu"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
slow = {{"torch._dynamo", "torchvision", "timm", "matplotlib"}}  # to import
unused = slow & set(sys.modules)
assert "torch" in sys.modules and not unused, unused
import pkgutil, spinal_repro
for module in pkgutil.walk_packages(spinal_repro.__path__, "spinal_repro."):
    if not module.name.startswith("spinal_repro.search"):
        __import__(module.name)
from spinal_repro.cli.spinal import main
try:
    main(["search", "--trials", "1"])
except SystemExit as stop:
    print("search", stop.code)
"""


def test_it_trains_without_any_extra_and_imports_only_modules_that_it_uses(tmp_path):
    names: list[str] = []
    for extra, packages in PROJECT["optional-dependencies"].items():
        for package in packages if extra != "test" else ():
            name = re.split(r"[\[<>=~! ]", package)[0]
            names += MODULES.get(name, [name.replace("-", "_")])
    names.remove("spinal_repro")  # the extra "all" names the project itself
    names.remove("pyarrow")  # scikit-learn takes a module from sys.modules, even None
    assert {"submitit", "optuna"} <= set(names)
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(names=names)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert "search 2" in done.stdout, done.stderr
    assert "spinal-repro[hpo]" in done.stderr
    assert "test accuracy" in done.stdout
