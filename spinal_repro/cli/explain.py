"""``spinal-train --explain``: each setting with its value and the file that sets it."""

from collections.abc import Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from spinal_repro.cli.overrides import parse_overrides
from spinal_repro.config.compose import (
    GROUPS,
    compose_raw,
    config_dir,
    find_choice,
    prepare,
    search_path,
    version_base,
)
from spinal_repro.config.schema import leaves
from spinal_repro.config.validate import validate


def explain(overrides: Sequence[str], folders: Sequence[Path] = ()) -> str:
    """A line for each setting: its value, and the file or override that sets it."""
    values = dict(leaves(validate(compose_raw(overrides, *folders)).to_dict()))
    origins: dict[str, str] = {}
    for entry in _defaults_list(overrides, folders):
        group, _, name = str(entry.config_path).rpartition("/")
        place, node = find_choice(group, name, folders)
        origins |= dict.fromkeys(dict(leaves(node, entry.package or "")), place)
    if "paper.name" in origins:
        origins["cell"] = origins["paper.name"]
    for override in parse_overrides(overrides):
        if override.key_or_group not in GROUPS:
            origins[override.key_or_group] = str(override.input_line)
    width, lines, group = max(map(len, values)), [], "dataset"
    for key, value in values.items():
        before, group = group, key.rpartition(".")[0].partition(".")[0]
        lines += [""] * (group != before)
        text = str(value) if len(str(value)) <= 40 else f"{str(value)[:37]}..."
        lines.append(f"{key:{width}}  {text:40}  {_origin(key, origins)}")
    return "\n".join(lines)


def _defaults_list(overrides: Sequence[str], folders: Sequence[Path]) -> list[ResultDefault]:
    """List the files that Hydra merges, in order."""
    full = [*prepare(overrides, folders), *search_path(folders)]
    with initialize_config_dir(str(config_dir().resolve()), **version_base()):
        loader = GlobalHydra.instance().config_loader()
        found = loader.compute_defaults_list("train", full, RunMode.RUN)
    return [d for d in found.defaults if d.config_path and not d.config_path.startswith("hydra")]


def _origin(key: str, origins: dict[str, str]) -> str:
    """Find the origin of a setting, or of the closest mapping that contains it."""
    while key and key not in origins:
        key = key.rpartition(".")[0]
    return origins.get(key, "default of the schema")
