"""What the commands import: seconds differ between machines, modules do not."""

import json
import subprocess
import sys

HEAVY = ("torch", "torchvision", "timm", "pandas", "numpy", "scipy", "sklearn", "matplotlib")
COMMANDS = (
    ("train", "--help"),
    ("train", "--cfg", "job", "head=spinal", "model=vgg5"),
    ("train", "recipe.epochs=-1"),
    ("spinal", "status", "."),
)
CODE = f"""
import importlib, json, sys
codes = []
for module, *words in {COMMANDS}:
    sys.argv = ["command", *words]
    try:
        importlib.import_module("spinal_repro.cli." + module).main()
        codes.append(0)
    except SystemExit as stop:
        codes.append(stop.code or 0)
print()
print(json.dumps([codes, sorted(sys.modules)]))
"""


def test_looking_and_checking_import_nothing_heavy(tmp_path):
    """Training: see test_core_alone.py."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    codes, modules = json.loads(done.stdout.splitlines()[-1])
    assert codes == [0, 0, 2, 0] and set(modules).isdisjoint(HEAVY)
    for shown in ("head: arch2, fc, linear", "width: 128", "name: vgg5", "got -1", "no runs"):
        assert shown in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
