"""The commands of README and docs are valid."""

import re
import shlex
from pathlib import Path

import hydra
import pytest

from spinal_repro.cli.launch import DEFAULT_LAUNCHER, launcher_of
from spinal_repro.cli.overrides import expand
from spinal_repro.cli.spinal import _parser
from spinal_repro.cli.train import check_overrides
from spinal_repro.config.compose import compose, config_dir

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES.remove(ROOT / "docs" / "extending.md")  # see test_extending.py


LINE = re.compile(r"^(?: {4})?(?:srun .*?)?(spinal(?:-train)? .*)$", re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Words of the lines of code that start one of our commands, without their comments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ").replace(" ...", "")
    return [shlex.split(line, comments=True) for line in LINE.findall(text)]


COMMANDS = [words for page in PAGES for words in commands(page)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_of_the_guides_is_valid(words):
    if words[0] == "spinal":
        _parser().parse_args(words[1:])
        return
    arguments = expand([w for w in words[1:] if w not in ("--explain", "--cfg", "job")], True)
    check_overrides(arguments)
    jobs = [word for word in arguments if not word.startswith(("-", "hydra"))]
    lists = re.compile(r"=(?:range\()?([^\[,]*),.*")  # a sweep's first value
    assert compose([lists.sub(r"=\1", job) for job in jobs])


def test_every_extra_of_the_guides_is_there():
    named = {name for page in PAGES for name in re.findall(r"repro\[(\w+)\]", page.read_text())}
    project = (ROOT / "pyproject.toml").read_text()
    assert {"slurm", "export"} <= named and all(f"\n{name} = [" in project for name in named)


def test_every_launcher_of_the_guides_composes():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    found = [words for words in COMMANDS if launcher_of(words) != DEFAULT_LAUNCHER]
    assert len(found) >= 5
    with hydra.initialize_config_dir(str(config_dir().resolve()), version_base="1.3"):
        for words in found:
            settings = [word for word in words if word.startswith(("hydra/", "hydra."))]
            hydra.compose("train", settings, return_hydra_config=True)
