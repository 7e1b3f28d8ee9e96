"""What the commands import: seconds differ between machines, modules do not."""

import json
import subprocess
import sys

HEAVY = ("torch", "torchvision", "timm", "pandas", "numpy", "scipy", "sklearn", "matplotlib")
SPINAL_TRAIN, SPINAL = "spinal_repro.cli.train", "spinal_repro.cli.spinal"
# Runs commands in one process; prints their exit codes and the modules that they imported.
CALL = """
import importlib, json, sys
codes = []
for module, *words in {commands!r}:
    sys.argv = ["command", *words]
    try:
        importlib.import_module(module).main()
        codes.append(0)
    except SystemExit as stop:
        codes.append(stop.code or 0)
print()
print(json.dumps([codes, sorted(sys.modules)]))
"""


def called(folder, *commands):
    """Printed output, exit codes, and names of the imported modules."""
    code = CALL.format(commands=commands)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    codes, modules = json.loads(done.stdout.splitlines()[-1])
    return done.stdout + done.stderr, codes, set(modules)


def test_looking_and_checking_import_nothing_heavy(tmp_path):
    printed, codes, modules = called(
        tmp_path,
        (SPINAL_TRAIN, "--help"),
        (SPINAL_TRAIN, "--cfg", "job", "head=spinal", "model=vgg5"),
        (SPINAL_TRAIN, "recipe.epochs=-1"),
        (SPINAL, "status", "."),
    )
    assert codes == [0, 0, 2, 0] and modules.isdisjoint(HEAVY)
    for shown in ("head: arch2, fc, linear", "width: 128", "name: vgg5", "got -1", "no runs"):
        assert shown in printed
    assert list(tmp_path.iterdir()) == []


def test_training_imports_neither_the_compiler_nor_what_it_does_not_use(tmp_path):
    _, codes, modules = called(tmp_path, (SPINAL_TRAIN, "data.limit=64", "recipe.epochs=1"))
    assert codes == [0] and "torch" in modules
    assert modules.isdisjoint(("torch._dynamo", "torchvision", "timm"))
