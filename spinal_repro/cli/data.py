"""``spinal data``: list, fetch, import, verify and look at data sets."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spinal_repro.errors import UserError


def add_parser(commands: Any) -> None:
    """Add ``data`` to the commands of ``spinal``."""
    parser = commands.add_parser("data", help="data sets: list, info, fetch, import, verify, show")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    add = {
        "list": "which data sets there are, and which of them are here",
        "info": "where a data set comes from, its licence, and how to get it",
        "fetch": "download data sets from their mirrors and check them",
        "import": "bring in files you already have: folders, archives, single files",
        "verify": "compare every checksum, or open every image",
        "show": "a sheet of images, before and after a cell's augmentation",
    }
    for verb, text in add.items():
        command = verbs.add_parser(verb, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.add_argument(
            "--root",
            type=Path,
            default=Path(os.environ.get("SPINAL_DATA", "data")),
            help="the folder data sets lie in (default: SPINAL_DATA, or ./data)",
        )
        command.add_argument(
            "--config-dir", type=Path, help="a folder with a group dataset/ of your own"
        )
        command.set_defaults(command=_interruptible, verb=globals()[f"_{verb}"])
        if verb in ("info", "verify", "show"):
            command.add_argument("name")
        if verb == "fetch":
            command.add_argument("names", nargs="+", metavar="NAME")
        if verb == "import":
            command.add_argument("name")
            command.add_argument("paths", nargs="+", metavar="PATH")
        if verb == "verify":
            command.add_argument("overrides", nargs="*", help="e.g. dataset.train_size=929")
        if verb == "show":
            command.add_argument("overrides", nargs="*", help="of the cell, e.g. model=vgg5")
            command.add_argument("--out", type=Path, help="default: NAME.png")
            command.add_argument("--seed", type=int, default=0, help="which images (default: 0)")


def _interruptible(given: argparse.Namespace) -> None:
    try:
        given.verb(given)
    except KeyboardInterrupt:
        raise UserError("interrupted; the same command continues where it stopped") from None


def _list(given: argparse.Namespace) -> None:
    from spinal_repro.data.catalog import load_catalog
    from spinal_repro.results.tables import Column, render

    columns = [
        Column("name", "name"),
        Column("title", "title"),
        Column("images", "images"),
        Column("state", "state", "auto: spinal data fetch NAME; others: spinal data info NAME"),
        Column("download", "download"),
        Column("licence", "licence"),
        Column("here", "here", f"in {given.root}; only looked at, see spinal data verify NAME"),
    ]
    rows = [
        {
            "name": entry.name,
            "title": entry.title,
            "images": " + ".join(f"{size:,}" for size in entry.sizes.values() if size),
            "state": entry.about.state,
            "download": _megabytes(entry.download_bytes),
            "licence": entry.about.licence or "not stated",
            "here": _here(entry, given.root),
        }
        for entry in load_catalog(given.config_dir).values()
    ]
    print(render(columns, rows, "table"))


def _here(entry: Any, root: Path) -> str:
    if entry.is_folder:
        found = [(entry.path(root) / name).is_dir() for name in entry.parts.values()]
    else:
        found = [(entry.path(root) / file.name).is_file() for file in entry.contents]
    return "yes" if all(found) else "in part" if any(found) else "no"


def _megabytes(size: int | None) -> str:
    return f"{size / 1e6:,.0f} MB" if size else ""


def _info(given: argparse.Namespace) -> None:
    from spinal_repro.data.catalog import PARTS, find_entry
    from spinal_repro.data.download import mirrors

    entry = find_entry(given.name, given.config_dir)
    about = entry.about
    names = {part: entry.parts.get(part, part) for part in PARTS}
    sizes = [f"{names[part]} {size:,}" for part, size in entry.sizes.items() if size]
    rows = {
        "classes": str(entry.num_classes),
        "images": ", ".join(sizes),
        "mean": ", ".join(map(str, about.mean or [])),
        "std": ", ".join(map(str, about.std or [])),
        "licence": about.licence or "not stated by its publisher, as far as we know",
        "citation": about.citation or "",
        "home page": about.homepage or "",
        "download": _megabytes(entry.download_bytes),
        "lies in": f"{entry.path(given.root)} ({_here(entry, given.root)})",
    }
    print(f"{entry.name}: {entry.title} ({about.state})")
    for key, value in rows.items():
        if value:
            print(f"  {key:10} {value}")
    for file in about.files:
        sums = [f"{k} {v}" for k in ("md5", "sha256") if (v := getattr(file, k)) is not None]
        print(f"  {'file':10} {file.name}  {', '.join(sums)}")
        for url in mirrors(file, entry):
            print(f"  {'':10}   {url}")
    for number, step in enumerate(about.instructions, 1):
        print(f"  {'get it' if number == 1 else '':10} {number}. {step}")
    for number, remark in enumerate(about.remarks):
        print(f"  {'' if number else 'remarks':10} - {remark}")


def _fetch(given: argparse.Namespace) -> None:
    from spinal_repro.data.catalog import find_entry
    from spinal_repro.data.fetch import fetch, siblings_of

    failed = []
    entries = [find_entry(name, given.config_dir) for name in given.names]
    for entry in entries:
        try:
            done = fetch(entry, given.root, siblings=siblings_of(entry))
        except UserError as error:
            if len(entries) == 1:
                raise
            print(f"{entry.name}: {error}", file=sys.stderr)
            failed.append(entry.name)
        else:
            where = entry.path(given.root) if entry.contents or entry.is_folder else "scikit-learn"
            print(f"{entry.name}: {'fetched to' if done else 'already in'} {where}")
    if failed:
        raise UserError(f"not fetched: {', '.join(failed)}")


def _import(given: argparse.Namespace) -> None:
    from spinal_repro.data.fetch import siblings_of
    from spinal_repro.data.imports import import_data

    overrides = [text for text in given.paths if _is_override(text)]
    paths = [Path(text) for text in given.paths if text not in overrides]
    if not paths:
        raise UserError("say what to import: spinal data import NAME PATH")
    entry = _entry(given.name, overrides, given.config_dir)
    done = import_data(entry, given.root, paths, siblings_of(entry))
    print(f"{entry.name}: {'imported to' if done else 'already in'} {entry.path(given.root)}")


def _verify(given: argparse.Namespace) -> None:
    from spinal_repro.data.verify import problems

    entry = _entry(given.name, given.overrides, given.config_dir)
    wrong = problems(entry, given.root)
    if wrong:
        mend = (
            f"spinal data fetch {entry.name}"
            if entry.about.state == "auto" and not entry.is_folder
            else f"spinal data info {entry.name}"
        )
        shown = "\n  ".join([*wrong[:20], *(["..."] if len(wrong) > 20 else [])])
        raise UserError(f"{entry.title} in {entry.path(given.root)}:\n  {shown}\nsee {mend}")
    summed = sum(file.md5 is not None or file.sha256 is not None for file in entry.contents)
    how = (
        "every image opens, and classes and numbers are as published"
        if entry.is_folder
        else f"{len(entry.contents)} files, {summed} with checksums, are as published"
        if entry.contents
        else "part of scikit-learn"
    )
    print(f"{entry.name}: {how}")


def _show(given: argparse.Namespace) -> None:
    from spinal_repro.config.compose import compose
    from spinal_repro.data.contact_sheet import contact_sheet

    if given.seed < 0:
        raise UserError(f"--seed must be at least 0, got {given.seed}")
    out = given.out or Path(f"{given.name}.png")
    config = compose([f"dataset={given.name}", *given.overrides], given.config_dir)
    contact_sheet(config, given.root, seed=given.seed).save(out, format="PNG")
    print(
        f"{out}: {config.dataset.title}, above as published, below as {config.recipe.name} sees it"
    )


def _is_override(text: str) -> bool:
    return "=" in text and not Path(text).exists()


def _entry(name: str, overrides: Sequence[str], config_dir: Path | None) -> Any:
    """The record of a data set with what the overrides say of its classes and sizes."""
    from spinal_repro.data.catalog import find_entry

    entry = find_entry(name, config_dir)
    if not overrides:
        return entry
    from spinal_repro.config.compose import compose

    wrong = [text for text in overrides if not text.lstrip("+").startswith("dataset.")]
    if wrong:
        raise UserError(f"only dataset.KEY=VALUE can be given here, not {shlex.join(wrong)}")
    return entry.resized(compose([f"dataset={name}", *overrides], config_dir).dataset)
