"""Packs tests, benchmark and published cells for a node with a GPU and no network.

The folder has wheels of this project and of missing dependencies, data sets, tests, scripts and
``run.sh``, which starts everything; see ``README.md`` beside this file.

    python scripts/gpu/pack.py [--out .gpu] [--data DIR] [--sets mnist fashion_mnist]
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from spinal_repro.data.assemble import gunzip
from spinal_repro.data.catalog import find_entry
from spinal_repro.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "COMMIT"
# missing on nodes with PyTorch, or too old; ANTLR is published as source only
MISSING = ("hydra-core", "omegaconf", "filelock")
ANTLR = "antlr4-python3-runtime==4.9.3"
MIB = 2**20


def add_wheels(folder: Path) -> None:
    """Build the wheels of this project and of the missing dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [text for text in project["dependencies"] if text.startswith(MISSING)]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    done = subprocess.run([*command, str(folder), str(ROOT), *needed, ANTLR])
    if done.returncode:
        raise UserError(f"pip could not build the wheels (exit code {done.returncode}, see above)")


def add_data(name: str, root: Path, target: Path) -> None:
    """Check a data set below ``root`` and copy it, compressed, to the same place in ``target``.

    Equal contents give equal files, whether the source is compressed or not.
    """
    entry = find_entry(name)
    if not entry.contents or not all("-idx" in file.name for file in entry.contents):
        raise UserError(f"--sets {name}: only data sets of idx files (the MNIST family) are packed")
    source, folder = entry.path(root), entry.path(target)
    folder.mkdir(parents=True, exist_ok=True)
    for file in entry.contents:
        plain, copy = source / file.name, folder / file.name
        packed = source / f"{file.name}.gz"
        if plain.is_file():
            shutil.copyfile(plain, copy)
        elif packed.is_file():
            gunzip(packed, copy)
        else:
            raise UserError(
                f"{plain} is missing; get it with 'spinal data fetch {name} --root {root}' or "
                f"choose another folder with --data (other ways: 'spinal data info {name}')"
            )
        if (wrong := file.problem(folder)) is not None:
            raise UserError(f"{entry.title} in {source}: {wrong}")
        compress(copy)


def compress(path: Path) -> None:
    """Replace a file by ``<name>.gz``, which depends on its content only."""
    with (
        path.with_name(f"{path.name}.gz").open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file,
    ):
        file.write(path.read_bytes())
    path.unlink()


def add_sources(folder: Path) -> None:
    """Copy tests, scripts and their settings, without files that git ignores."""
    listed = git("ls-files", "-z", "-co", "--exclude-standard", "tests", "scripts")
    for name in ["pyproject.toml", *filter(None, listed.split("\0"))]:
        if (ROOT / name).is_file():  # deleted files are listed too
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def git(*arguments: str) -> str:
    """Run git in this checkout."""
    try:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{ROOT} is not a git checkout; records need a commit") from error


def commit() -> str:
    """Return ``<hash>``, or ``<hash>+modified`` if files differ from the commit."""
    changed = git("status", "--porcelain").strip()
    return git("rev-parse", "HEAD").strip() + ("+modified" if changed else "")


def size(files: Iterable[Path]) -> int:
    """Add up the bytes of files."""
    return sum(path.stat().st_size for path in files if path.is_file())


def check_size(folder: Path, max_mib: float) -> str:
    """Describe the size of a pack and the tracked files; refuse more than ``max_mib``."""
    parts = {path.name: size([path, *path.rglob("*")]) for path in sorted(folder.iterdir())}
    tracked = size(ROOT / name for name in git("ls-files", "-z").split("\0") if name)
    total = sum(parts.values()) + tracked
    listed = ", ".join(f"{name} {count / MIB:.1f}" for name, count in parts.items())
    text = f"{total / MIB:.1f} MiB ({listed}; tracked files of the repository {tracked / MIB:.1f})"
    if total > max_mib * MIB:
        raise UserError(
            f"the pack would have {text}, above --max-mib {max_mib:g}: use fewer --sets"
        )
    return text


def build(out: Path, data: Path, sets: Iterable[str], max_mib: float) -> str:
    """Build the pack, replace an old one, and return a description of its size."""
    if out.exists() and not (out / COMMIT).is_file():
        raise UserError(f"{out} exists and is not a pack; delete it or choose another --out")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        (partial / COMMIT).write_text(commit() + "\n")
        shutil.copyfile(ROOT / "scripts" / "gpu" / "run.sh", partial / "run.sh")
        add_sources(partial / "source")
        for name in sets:
            add_data(name, data, partial / "data")
        add_wheels(partial / "wheels")
        text = check_size(partial, max_mib)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return text


def main() -> None:
    """Build the pack and print how to start it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / ".gpu", help="default: .gpu")
    root = Path(os.environ.get("SPINAL_DATA", "data"))
    parser.add_argument("--data", type=Path, default=root, help="default: SPINAL_DATA, or ./data")
    parser.add_argument("--sets", nargs="*", default=["mnist", "fashion_mnist"])
    parser.add_argument("--max-mib", type=float, default=60.0, help="default: 60")
    given = parser.parse_args()
    try:
        text = build(given.out, given.data, given.sets, given.max_mib)
    except UserError as error:
        sys.exit(f"pack.py: {error}")
    if (given.out / COMMIT).read_text().endswith("+modified\n"):
        print(
            "warning: files here differ from the commit, and records will say so", file=sys.stderr
        )
    print(f"{given.out}: {text}\nstart it on the node with: bash {given.out.name}/run.sh OUT")


if __name__ == "__main__":
    main()
