"""``spinal-train --help`` (Hydra's own takes seconds) and ``--explain``."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from spinal_repro.cli.overrides import parse_overrides
from spinal_repro.config import compose
from spinal_repro.config.schema import leaves
from spinal_repro.config.validate import validate

USAGE = """\
usage: spinal-train [-m] [GROUP=NAME ...] [GROUP.KEY=VALUE ...] [paper=TABLE/CELL]

Trains one configuration, or resumes it; with -m, one run for each combination of values:

    spinal-train dataset=qmnist model=vgg5 head=spinal
    spinal-train -m dataset=mnist,kmnist head=fc,spinal seed=0,1,2
    spinal-train paper=mnist/vgg5_spinal

Groups and their names (a dataset and a model choose the published recipe and head):

"""
OPTIONS = """
options:
  -h, --help        show this text
  -m, --multirun    one run for each combination of comma-separated values
  --cfg job         show the composed configuration, without training
  --explain         show each setting with the file that sets it, without training
  --config-dir DIR  a folder with your own configuration groups
  --hydra-help      options of Hydra

model also takes any network of torchvision and timm: model=resnext50_32x4d.
Published cells: spinal paper list. Data sets: spinal data list. Runs: spinal status.
Data sets are in data/ (data.root, SPINAL_DATA), run folders in runs/ (runs, SPINAL_RUNS)."""


def help_text(folders: Sequence[Path]) -> str:
    """Format usage, groups with their choices (also those in the user's folders), and options."""
    found = {group: ", ".join(compose.choices(group, folders)) for group in compose.GROUPS}
    return USAGE + "".join(f"  {group}: {names}\n" for group, names in found.items()) + OPTIONS


@contextmanager
def string_help() -> Iterator[None]:
    """Let Hydra 1.3 build its parser on Python 3.14, where an option's help must be a string."""
    add: Any = argparse.ArgumentParser.add_argument

    def add_with_text(parser: argparse.ArgumentParser, *names: str, **options: Any) -> Any:
        if not isinstance(options.get("help"), str | None):
            options["help"] = "install or remove shell completion"
        return add(parser, *names, **options)

    argparse.ArgumentParser.add_argument = add_with_text  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.add_argument = add  # type: ignore[method-assign]


def explain(overrides: Sequence[str], folders: Sequence[Path] = ()) -> str:
    """A line for each setting: its value, and the file or override that sets it."""
    values = dict(leaves(validate(compose.compose_raw(overrides, *folders)).to_dict()))
    origins: dict[str, str] = {}
    for entry in _defaults_list(overrides, folders):
        group, _, name = str(entry.config_path).rpartition("/")
        place, node = compose.find_choice(group, name, folders)
        origins |= dict.fromkeys(dict(leaves(node, entry.package or "")), place)
    if "paper.name" in origins:
        origins["cell"] = origins["paper.name"]
    for override in parse_overrides(overrides):
        if override.key_or_group not in compose.GROUPS:
            origins[override.key_or_group] = str(override.input_line)
    width, lines, group = max(map(len, values)), [], "dataset"
    for key, value in values.items():
        before, group = group, key.rpartition(".")[0].partition(".")[0]
        lines += [""] * (group != before)
        text = str(value) if len(str(value)) <= 40 else f"{str(value)[:37]}..."
        place = key  # or the closest mapping that contains it
        while place and place not in origins:
            place = place.rpartition(".")[0]
        lines.append(f"{key:{width}}  {text:40}  {origins.get(place, 'default of the schema')}")
    return "\n".join(lines)


def _defaults_list(overrides: Sequence[str], folders: Sequence[Path]) -> list[ResultDefault]:
    """List the files that Hydra merges, in order."""
    full = [*compose.prepare(overrides, folders), *compose.search_path(folders)]
    with initialize_config_dir(str(compose.config_dir().resolve()), **compose.version_base()):
        loader = GlobalHydra.instance().config_loader()
        found = loader.compute_defaults_list("train", full, RunMode.RUN)
    return [d for d in found.defaults if d.config_path and not d.config_path.startswith("hydra")]
