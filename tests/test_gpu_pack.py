"""The folder for a node with a GPU: its data, its parts, and the commands of its script."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import mirror
from helpers.composing import composed
from helpers.idx_files import gzip_in_place, paths, write_dataset

from spinal_repro.data.catalog import File, find_entry
from spinal_repro.errors import UserError

GPU = Path(__file__).parents[1] / "scripts" / "gpu"
if not GPU.is_dir():
    pytest.skip("scripts/ is in the repository, not in the source archive", allow_module_level=True)
if not hasattr(os, "fork"):
    pytest.skip("the script is for bash", allow_module_level=True)
CONFIG = composed("dataset=mnist").dataset


@pytest.fixture
def pack(monkeypatch):
    monkeypatch.syspath_prepend(str(GPU))
    import pack

    yield pack
    sys.modules.pop("pack")


@pytest.fixture
def data(tmp_path, pack, monkeypatch):
    """A small MNIST with an entry of the catalog that has its checksums."""
    root = tmp_path / "data"
    write_dataset(root, CONFIG, 60, 20)
    contents = [File(p.name, sha256=mirror.sha256(p.read_bytes())) for p in paths(root, CONFIG)]
    entry = mirror.with_about(find_entry("mnist"), contents=contents)
    monkeypatch.setattr(pack, "find_entry", lambda name: entry)
    return root


def contents(root):
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_published_idx_files_are_packed_the_same_whether_plain_or_compressed(pack, data, tmp_path):
    plain = contents(data)
    pack.add_data("mnist", data, tmp_path / "once")
    packed = [gzip_in_place(path) for path in paths(data, CONFIG)]
    pack.add_data("mnist", data, tmp_path / "again")
    found = contents(tmp_path / "once")
    assert found == contents(tmp_path / "again") and len(found) == 4
    assert {name[:-3]: gzip.decompress(value) for name, value in found.items()} == plain
    packed[0].write_bytes(gzip.compress(b"something else"))
    with pytest.raises(UserError, match=packed[0].stem):
        pack.add_data("mnist", data, tmp_path / "packed")
    packed[0].unlink()
    with pytest.raises(UserError, match="spinal data fetch mnist"):
        pack.add_data("mnist", data, tmp_path / "packed")


def test_a_pack_has_its_parts_and_a_limit_and_replaces_only_a_pack(
    pack, data, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    monkeypatch.setattr(pack, "add_wheels", Path.mkdir)
    pack.build(out, data, ["mnist"], 60)
    assert {path.name for path in out.iterdir()} == {"COMMIT", "data", "run.sh", "source", "wheels"}
    head = pack.git("rev-parse", "HEAD").strip()
    assert (out / "COMMIT").read_text() in (f"{head}\n", f"{head}+modified\n")
    for name in ("pyproject.toml", "tests/conftest.py", "scripts/benchmark.py"):
        assert (out / "source" / name).read_bytes() == (GPU.parents[1] / name).read_bytes()
    (out / "mine").write_text("kept")
    for folder, limit, named in ((out, 0.001, "--max-mib"), (data, 60, "not a pack")):
        with pytest.raises(UserError, match=named):
            pack.build(folder, data, ["mnist"], limit)
    assert (out / "mine").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "data"}


PYTHON = """#!/bin/sh
echo "$SPINAL_COMMIT $*" >> "$CALLS"
case "$*" in
*"-m pytest"*) echo tested; exit "$TESTS" ;;
*benchmark.py*) exec sleep "$SLEEP" ;;
*"paper run"*) for word; do [ "$last" != --out ] || touch "$word"; last=$word; done; exit 75 ;;
*"-m zipfile"*) mkdir -p "$5"; echo "1 of 9 runs finished, $FAILED failed." > "$5/summary.md" ;;
esac
"""


@pytest.fixture
def node(tmp_path):
    """A pack on a node whose Python notes its arguments and exits with the code of each part."""
    folder, python = tmp_path / "pack", tmp_path / "bin" / "python3"
    for place in (folder / "data/MNIST", folder / "wheels", folder / "source", python.parent):
        place.mkdir(parents=True)
    (folder / "COMMIT").write_text("0123abc\n")
    shutil.copyfile(GPU / "run.sh", folder / "run.sh")
    python.write_text(PYTHON)
    python.chmod(0o755)

    def call(*arguments, tests=0, sleep=0, failed=0, **variables):
        settings = {"TESTS": str(tests), "SLEEP": str(sleep), "FAILED": str(failed)}
        path = f"{python.parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", str(folder / "run.sh"), *arguments],
            cwd=tmp_path,
            env={"PATH": path, "CALLS": str(tmp_path / "calls"), **settings, **variables},
            capture_output=True,
            text=True,
            timeout=30,
        )

    return call


def test_all_parts_run_in_order_and_name_the_commit(node, tmp_path):
    done = node("out", "--device", "cpu", "data.limit=9", "recipe.epochs=2", tests=5)
    assert done.returncode == 0, done.stdout + done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    measured = "--parts loops profiles --device cpu --models cnn --minutes"
    wanted = ["-m pip install", "- cpu", "-m cuda", measured, "data.limit=9", "-e"]
    for call, part in zip(calls, wanted, strict=True):
        assert call.startswith("0123abc ") and part in call
    assert "runtime.device=cpu data.limit=9 recipe.epochs=2 --seeds" in calls[-2]
    assert (tmp_path / "out" / "summary.md").read_text().startswith("1 of 9")
    assert (tmp_path / "out" / "tests.txt").read_text() == "tested\n"


PARTS = ["--parts loops", "--parts seeds", "paper run"]


@pytest.mark.parametrize(("left_out", "parts"), [("CELLS", PARTS[:2]), ("MODELS", PARTS[2:])])
def test_cells_or_benchmark_can_be_left_out(node, tmp_path, left_out, parts):
    done = node("out", "--device", "cpu", "--minutes", "6", **{left_out: ""})
    assert done.returncode == 0, done.stdout + done.stderr
    calls = (tmp_path / "calls").read_text()
    assert [part for part in PARTS if part in calls] == parts
    minutes = sum(float(n) for n in re.findall(r"--minutes (\S+) --out \S+json", calls))
    assert left_out == "MODELS" or 3 < minutes < 6  # the benchmark gets the time of the cells


def test_a_part_that_fails_or_hangs_does_not_stop_the_next(node, tmp_path):
    done = node("out", "--minutes", "0.5", "--device", "cpu", tests=1, sleep=60, failed=2)
    assert done.returncode == 1
    assert done.stdout.endswith("failed: tests benchmark runs\n"), done.stdout
    assert "paper run" in (tmp_path / "calls").read_text().splitlines()[-2]


@pytest.mark.parametrize("wrong", [["--minutes", "x"], ["--device", "gpu"], ["old"]])
def test_wrong_arguments_are_refused(node, tmp_path, wrong):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "log.txt").write_text("of an earlier call")
    done = node(*wrong)
    assert done.returncode == 2 and done.stderr.startswith("run.sh: ")
    assert {path.name for path in tmp_path.iterdir()} == {"pack", "bin", "old"}
    assert (tmp_path / "old" / "log.txt").read_text() == "of an earlier call"
