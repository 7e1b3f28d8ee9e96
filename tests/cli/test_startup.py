"""What the commands import: seconds differ between machines, modules do not."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "timm", "pandas", "numpy", "scipy", "sklearn", "matplotlib")
REPORT = """
import sys
from spinal_repro.cli.{module} import main
sys.argv = ["spinal", *{arguments!r}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
import json
print()
print(json.dumps(sorted(sys.modules)))
"""


def modules(tmp_path, module, arguments):
    """Names of the modules that a command has imported when it ends."""
    code = REPORT.format(module=module, arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module, arguments",
    [
        ("train", ["--help"]),
        ("train", ["--cfg", "job", "model=vgg5", "recipe.lr=0.1"]),
        ("spinal", ["--help"]),
        ("spinal", ["status", "."]),
    ],
    ids=str,
)
def test_looking_imports_nothing_heavy(module, arguments, tmp_path):
    assert modules(tmp_path, module, arguments).isdisjoint(HEAVY)


def test_training_imports_neither_the_compiler_nor_what_it_does_not_use(tmp_path):
    found = modules(tmp_path, "train", ["data.limit=64", "recipe.epochs=1"])
    assert "torch" in found and list(tmp_path.glob("runs/*/*/s0/record.json"))
    assert found.isdisjoint(("torch._dynamo", "torchvision", "timm"))


def test_help_names_every_choice_those_of_one_s_own_too(tmp_path):
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "mine.yaml").write_text("name: linear\n")
    code = "from spinal_repro.cli.train import main; main()"
    command = [sys.executable, "-c", code, "--config-dir", str(tmp_path), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    groups = dict(line.strip().split(": ", 1) for line in shown.splitlines() if ": " in line)
    assert "vgg5" in groups["model"].split(", ") and "mnist" in groups["dataset"].split(", ")
    assert "mine" in groups["head"].split(", ")
