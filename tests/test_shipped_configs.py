"""Every file under configs/ is composed into the run it is meant for, and that run trains."""

from pathlib import Path

import pytest
from idx_files import write_dataset
from omegaconf import DictConfig, OmegaConf

from spinal_repro.config import compose, compose_raw, config_dir
from spinal_repro.training.run import run

FILES = sorted(path.relative_to(config_dir()) for path in config_dir().rglob("*.yaml"))
DATASETS = [path.stem for path in FILES if path.parent == Path("dataset")]
TINY = {"train": 60, "test": 60}


def choices_of(file: Path) -> list[str]:
    """The choices that bring a file into the composition, read off its place and name."""
    group, name = file.parent.as_posix(), file.stem
    if group == ".":
        return []
    if group in ("head/for/on", "recipe/on"):
        dataset = next(d for d in sorted(DATASETS, key=len)[::-1] if name.startswith(f"{d}_"))
        rest = name.removeprefix(f"{dataset}_")
        if group == "recipe/on":
            return [f"dataset={dataset}", f"model={rest}", f"recipe={rest}"]
        model, head = rest.rsplit("_", 1)
        return [f"dataset={dataset}", f"model={model}", f"head={head}"]
    if group == "head/for":
        model, head = name.rsplit("_", 1)
        return [f"model={model}", f"head={head}"]
    return [f"{group}={name}"]


def leaves(node: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {
        k: v for key, value in node.items() for k, v in leaves(value, f"{prefix}.{key}").items()
    }


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_shipped_file_composes_and_trains(file, tmp_path):
    choices = choices_of(file)
    composed = compose_raw(choices)
    group = file.parts[0] if len(file.parts) > 1 else None
    section = composed[group] if group else composed
    own = OmegaConf.to_container(OmegaConf.load(config_dir() / file))
    assert isinstance(own, dict) and isinstance(section, DictConfig)
    for key, value in leaves({k: v for k, v in own.items() if k != "defaults"}).items():
        if key.startswith(".hydra") or "${" in str(value):
            continue
        specialised = file.parent.as_posix() in ("head", "recipe")  # overlays may override these
        found = OmegaConf.select(section, key.removeprefix("."))
        found = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
        assert specialised or found == value, f"{key} of {file} has no effect"

    config = compose(choices)
    budget = [
        f"runs={tmp_path / 'runs'}", f"data.root={tmp_path}", "data.limit=20",
        "recipe.epochs=1", "recipe.batch_size=10", "runtime.device=cpu", "runtime.progress=none",
    ]  # fmt: skip
    if config.dataset.source != "digits":
        write_dataset(tmp_path, config.dataset, **TINY)
        budget += [f"dataset.{part}_size={size}" for part, size in TINY.items()]
    record = run(compose([*choices, *budget])).record
    assert len(record["history"]) == 1 and record["test"]["last"]["count"] == 20
    assert record["config"]["dataset"]["name"] == config.dataset.name
