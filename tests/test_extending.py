"""The README's three recipes for adding things, followed word for word."""

import re
from pathlib import Path

import pytest
import torch

from spinal_repro.config.compose import compose
from spinal_repro.data.sources import SOURCES, load_sources
from spinal_repro.models.backbones import BACKBONES, load_backbones
from spinal_repro.models.heads import HEADS
from spinal_repro.training.run import run

README = Path(__file__).parent.parent / "README.md"


def blocks(section: str) -> list[tuple[str, str]]:
    """Language and text of the code blocks of a README section."""
    text = README.read_text().split(f"### {section}\n")[1].split("\n### ")[0].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def registries():
    """Whatever a test registers is forgotten afterwards."""
    load_backbones()
    load_sources()  # else what they register later would be taken away
    kept = [(registry, dict(registry._items)) for registry in (BACKBONES, HEADS, SOURCES)]
    yield
    for registry, items in kept:
        registry._items.clear()
        registry._items.update(items)


@pytest.mark.parametrize("section", ["Add a data set", "Add a backbone", "Add a head"])
def test_the_readme_way_works(section, tmp_path, registries):
    commands = []
    for language, text in blocks(section):
        if language == "yaml":  # the first line is a comment with the file's place in configs/
            place = re.match(r"# configs/(\S+)", text)
            assert place, text
            file = tmp_path / "configs" / place[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        elif language == "python":
            exec(text, {"__name__": "readme"})
        else:
            commands += re.findall(r"spinal-train (.*)", text)
    assert len(commands) == 1
    overrides = [
        *commands[0].split(), f"runs={tmp_path / 'runs'}", "runtime.progress=none",
        "recipe.epochs=1", "data.limit=100",
    ]  # fmt: skip
    record = run(compose(overrides, extra_dir=tmp_path / "configs")).record
    assert torch.isfinite(torch.tensor(record.history[0]["train_loss"]))
