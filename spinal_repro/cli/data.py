"""``spinal data``: list, fetch, import, verify and show data sets."""

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from spinal_repro.cli.spinal import command, folder, natural, new_file, option, path
from spinal_repro.config.compose import compose
from spinal_repro.data.catalog import Entry, find_entry, load_catalog
from spinal_repro.errors import UserError
from spinal_repro.results.tables import Column, render

NAME = option("name", help="see `spinal data list`")
PLACE = (
    option("--root", type=Path, default=lambda: path(os.environ.get("SPINAL_DATA", "data")),
           help="the data folder (default: SPINAL_DATA, or ./data)"),
    option("--config-dir", type=folder, help="a configuration folder with dataset/"),
)  # fmt: skip
RESIZED = option("overrides", nargs="*", help="e.g. dataset.train_size=929")


@command("data list", *PLACE)
def print_list(given: argparse.Namespace) -> None:
    """List all data sets, and whether they are in the data folder."""
    legend = {
        "state": "auto: spinal data fetch NAME; others: spinal data info NAME",
        "here": f"in {given.root}; to compare checksums: spinal data verify NAME",
    }
    rows = [
        {
            "name": entry.name,
            "title": entry.title,
            "images": " + ".join(f"{size:,}" for size in entry.sizes.values() if size),
            "state": entry.about.state,
            "download": entry.download_size,
            "licence": entry.about.licence or "not stated",
            "here": _here(entry, given.root),
        }
        for entry in load_catalog(given.config_dir).values()
    ]
    columns = [Column(key, key, legend.get(key, "")) for key in rows[0]]
    print(render(columns, rows, "table"))


def _here(entry: Entry, root: Path) -> str:
    names = entry.parts.values() if entry.is_folder else [file.name for file in entry.contents]
    found = [(entry.path(root) / name).exists() for name in names]
    return "yes" if all(found) else "in part" if any(found) else "no"


@command("data info", NAME, *PLACE)
def print_info(given: argparse.Namespace) -> None:
    """Show origin, licence and checksums of a data set, and how to get it."""
    from spinal_repro.data.download import mirrors

    entry = find_entry(given.name, given.config_dir)
    about = entry.about
    sizes = [f"{entry.parts.get(part, part)} {n:,}" for part, n in entry.sizes.items() if n]
    lines = [
        ("classes", str(entry.num_classes)),
        ("images", ", ".join(sizes)),
        ("mean", ", ".join(map(str, about.mean or []))),
        ("std", ", ".join(map(str, about.std or []))),
        ("licence", about.licence or "not stated by the publisher, as far as we know"),
        ("citation", about.citation),
        ("homepage", about.homepage),
        ("download", entry.download_size),
        ("folder", f"{entry.path(given.root)} (here: {_here(entry, given.root)})"),
    ]
    for file in about.files:
        sums = [f"{k} {v}" for k in ("md5", "sha256") if (v := getattr(file, k)) is not None]
        lines.append(("file", f"{file.name}  {', '.join(sums)}"))
        lines += [("", f"  {url}") for url in mirrors(file, entry)]
    for number, step in enumerate(about.instructions, 1):
        lines.append(("get it" if number == 1 else "", f"{number}. {step}"))
    lines += [("remark", remark) for remark in about.remarks]
    print(f"{entry.name}: {entry.title} ({about.state})")
    for key, value in lines:
        if value:
            print(f"  {key:10} {value}")


@command("data fetch", option("names", nargs="+", metavar="NAME"), *PLACE)
def fetch_data(given: argparse.Namespace) -> None:
    """Download data sets and check them."""
    from spinal_repro.data.install import fetch

    failed = []
    for entry in [find_entry(name, given.config_dir) for name in given.names]:
        try:
            done = fetch(entry, given.root)
        except UserError as error:
            failed.append(f"{entry.name} was not fetched: {error}")
        else:
            where = entry.path(given.root) if entry.contents or entry.is_folder else "scikit-learn"
            print(f"{entry.name}: {'fetched to' if done else 'already in'} {where}")
    if failed:
        raise UserError("\n".join(failed))


PATHS = "files, archives or folders; also e.g. dataset.train_size=929"


@command("data import", NAME, option("paths", nargs="+", metavar="PATH", help=PATHS), *PLACE)
def import_files(given: argparse.Namespace) -> None:
    """Copy folders, archives or single files that you already have."""
    from spinal_repro.data.install import import_data

    overrides = [text for text in given.paths if "=" in text and not Path(text).exists()]
    if not (paths := [Path(text) for text in given.paths if text not in overrides]):
        raise UserError("give the files to import: spinal data import NAME PATH")
    entry = _entry(given.name, overrides, given.config_dir)
    done = import_data(entry, given.root, paths)
    print(f"{entry.name}: {'imported to' if done else 'already in'} {entry.path(given.root)}")


@command("data verify", NAME, RESIZED, *PLACE)
def verify_data(given: argparse.Namespace) -> None:
    """Compare every checksum of a data set, or open every image."""
    from spinal_repro.data.assemble import problems

    entry = _entry(given.name, given.overrides, given.config_dir)
    if wrong := problems(entry, given.root, open_images=True):
        verb = "fetch" if entry.about.state == "auto" and not entry.is_folder else "info"
        shown = "\n  ".join([*wrong[:20], *(["..."] if len(wrong) > 20 else [])])
        fix = f"to fix it: spinal data {verb} {entry.name}"
        raise UserError(f"{entry.title} in {entry.path(given.root)}:\n  {shown}\n{fix}")
    found = "part of scikit-learn"
    if entry.is_folder:
        found = "every image opens; the numbers of classes and images are as published"
    elif entry.contents:
        summed = sum(bool(file.md5 or file.sha256) for file in entry.contents)
        found = f"{len(entry.contents)} files, {summed} with checksums, are as published"
    print(f"{entry.name}: {found}")


@command(
    "data show",
    NAME,
    option("overrides", nargs="*", help="of the configuration, e.g. model=vgg5"),
    option("--out", type=new_file, help="default: NAME.png"),
    option("--seed", type=natural, default=0, help="selects the images (default: 0)"),
    *PLACE,
)
def show_data(given: argparse.Namespace) -> None:
    """Draw a sheet of images before and after augmentation."""
    from spinal_repro.cli.overrides import check_overrides
    from spinal_repro.data.contact_sheet import contact_sheet

    out = given.out or Path(f"{given.name}.png")
    overrides = [f"dataset={given.name}", *given.overrides]
    check_overrides(overrides, *filter(None, [given.config_dir]))
    config = compose(overrides, given.config_dir)
    contact_sheet(config, given.root, seed=given.seed).save(out, format="PNG")
    print(f"{out}: {config.dataset.title}, before and after recipe {config.recipe.name}")


def _entry(name: str, overrides: Sequence[str], config_dir: Path | None) -> Entry:
    """Find a data set and apply the overrides."""
    entry = find_entry(name, config_dir)
    if not overrides:
        return entry
    if not all(text.lstrip("+").startswith("dataset.") for text in overrides):
        raise UserError(f"give only dataset.KEY=VALUE here, not {shlex.join(overrides)}")
    return entry.resized(compose([f"dataset={name}", *overrides], config_dir).dataset)
