"""The commands of docs/cluster.md are valid."""

import re
import shlex
from pathlib import Path

import hydra
import pytest

from spinal_repro.cli.cells import expand
from spinal_repro.cli.launch import OWN, launcher_of
from spinal_repro.cli.spinal import _parser
from spinal_repro.cli.train import check_overrides
from spinal_repro.config.compose import compose, config_dir

GUIDE = (Path(__file__).parent.parent / "docs" / "cluster.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    for line in block.strip().splitlines()
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_guide_is_valid(line, capsys):
    words = shlex.split(line)
    if words[0] == "srun":
        words = words[words.index("spinal") :]
    if words[0] == "pip":
        extra = re.search(r"\[(\w+)\]", words[2])
        project = (Path(__file__).parent.parent / "pyproject.toml").read_text()
        assert extra and f"\n{extra[1]} = [" in project
    elif words[0] == "spinal":
        _parser().parse_args(words[1:])
    else:
        assert words[0] == "spinal-train" and words[1] == "-m"
        arguments = expand(words[1:], True)
        check_overrides(arguments)
        jobs = [a for a in arguments if not a.startswith(("-", "hydra"))]
        assert compose([job.partition(",")[0] for job in jobs])  # the first job of the sweep


def test_every_launcher_of_the_guide_composes():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    found = [words for words in map(shlex.split, COMMANDS) if launcher_of(words) != OWN]
    assert len(found) >= 5
    with hydra.initialize_config_dir(str(config_dir().resolve()), version_base="1.3"):
        for words in found:
            settings = [word for word in words if word.startswith(("hydra/", "hydra."))]
            hydra.compose("train", settings, return_hydra_config=True)
