"""The commands of docs/cluster.md are what the programs take; the rehearsal is run as written."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from spinal_repro.cli.cells import expand
from spinal_repro.cli.launch import check_jobs, launcher_of
from spinal_repro.cli.spinal import _parser
from spinal_repro.cli.train import _main, check_overrides
from spinal_repro.config import compose
from spinal_repro.records import describe, run_folders

GUIDE = (Path(__file__).parent.parent / "docs" / "cluster.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    for line in block.strip().splitlines()
]
REHEARSAL = next(line for line in COMMANDS if "submitit_local" in line)


def inner(words: list[str]) -> list[str]:
    """The command of this package in a line: without variables, and what SLURM wraps."""
    while "=" in words[0]:
        words = words[1:]
    if words[0] == "sbatch":
        return shlex.split(words[words.index("--wrap") + 1])
    return words[words.index("spinal") :] if words[0] == "srun" else words


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_guide_is_valid(line, capsys):
    words = inner(shlex.split(line))
    if words[0] == "pip":
        extra = re.search(r"\[(\w+)\]", words[2])
        project = (Path(__file__).parent.parent / "pyproject.toml").read_text()
        assert extra and f"\n{extra[1]} = [" in project
    elif words[0] == "spinal":
        _parser().parse_args(words[1:])
    elif words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        given = get_args_parser().parse_args(words[1:])
        assert given.module and given.training_script == "spinal_repro.cli.train"
        compose(given.training_script_args)
    else:
        assert words[0] == "spinal-train" and words[1] == "-m"
        arguments = expand(words[1:], True)
        check_overrides(arguments)
        cells = [a for a in arguments if a.startswith("paper=")]
        few = [",".join(re.split(",", a)[:2]) for a in cells]  # all are composed elsewhere
        rest = [a for a in arguments if a not in cells and not a.startswith("seed=")]
        assert check_jobs([*rest, *few])


def test_every_launcher_of_the_guide_composes():
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    from spinal_repro.config import config_dir

    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    lines = [shlex.split(line) for line in COMMANDS]
    found = [words for words in lines if launcher_of(words)]
    assert len(found) >= 5
    with initialize_config_dir(str(config_dir().resolve()), version_base="1.3"):
        for words in found:
            settings = [word for word in words if word.startswith(("hydra/", "hydra."))]
            hydra_compose("train", settings, return_hydra_config=True)


def test_the_rehearsal_runs_as_written(tmp_path, monkeypatch, capsys):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    arguments = shlex.split(REHEARSAL)[1:]
    monkeypatch.setattr(sys, "argv", ["spinal-train", *arguments])
    monkeypatch.setenv("SPINAL_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    assert _main(arguments) == 0
    assert "2 of 2 runs finished" in capsys.readouterr().out
    states = [describe(folder)["state"] for folder in run_folders(tmp_path / "runs")]
    assert states == ["done", "done"]
