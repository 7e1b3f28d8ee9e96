"""The folder for a node with a GPU: what is packed, what is refused, and what its script starts."""

import dataclasses
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.idx_files import gzip_in_place, write_dataset

from spinal_repro.config.compose import compose
from spinal_repro.data.catalog import find_entry
from spinal_repro.errors import UserError

GPU = Path(__file__).parents[1] / "scripts" / "gpu"
if not GPU.is_dir():
    pytest.skip("scripts/ is in the repository, not in the source archive", allow_module_level=True)
if not hasattr(os, "fork"):
    pytest.skip("the script is for bash", allow_module_level=True)
CONFIG = compose(["dataset=mnist"]).dataset


@pytest.fixture
def pack(monkeypatch):
    monkeypatch.syspath_prepend(str(GPU))
    import pack

    yield pack
    sys.modules.pop("pack")


@pytest.fixture
def data(tmp_path, pack, monkeypatch):
    """A small MNIST that the catalog takes for the published one."""
    root = tmp_path / "data"
    write_dataset(root, CONFIG, 60, 20)
    entry = find_entry("mnist")
    folder = entry.path(root)
    contents = [
        dataclasses.replace(f, sha256=hashlib.sha256((folder / f.name).read_bytes()).hexdigest())
        for f in entry.contents
    ]
    entry = dataclasses.replace(entry, about=dataclasses.replace(entry.about, contents=contents))
    monkeypatch.setattr(pack, "find_entry", lambda name: entry)
    return root


def contents(root):
    return {path.name: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_data_are_packed_the_same_from_any_source(pack, data, tmp_path):
    plain = contents(data)
    pack.add_data("mnist", data, tmp_path / "once")
    for path in (data / "MNIST" / "raw").iterdir():
        packed = gzip_in_place(path)  # as of now, with another header
        packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()), 1, mtime=12345))
    pack.add_data("mnist", data, tmp_path / "again")
    found = contents(tmp_path / "once")
    assert found == contents(tmp_path / "again")
    assert len(found) == 4 and all(name.endswith("-ubyte.gz") for name in found)
    assert all(value[4:8] == bytes(4) for value in found.values()), "a time is in the header"
    assert {name[:-3]: gzip.decompress(value) for name, value in found.items()} == plain


def test_other_data_than_the_published_are_refused(pack, data, tmp_path):
    path = data / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    right = path.read_bytes()
    path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte is damaged"):
        pack.add_data("mnist", data, tmp_path / "packed")
    path.unlink()
    with pytest.raises(UserError, match="spinal data fetch mnist"):
        pack.add_data("mnist", data, tmp_path / "packed")


@pytest.mark.parametrize("name", ["cifar10", "digits"])
def test_sets_of_other_files_are_refused(pack, tmp_path, name):
    with pytest.raises(UserError, match="idx files"):
        pack.add_data(name, tmp_path, tmp_path / "packed")


def test_a_pack_has_its_parts_and_stays_within_its_limit(pack, data, tmp_path, monkeypatch):
    out, packed = tmp_path / "out", []

    def add_wheels(folder):
        folder.mkdir()
        (folder / "some.whl").write_bytes(bytes(1000))
        packed.append(folder)

    monkeypatch.setattr(pack, "add_wheels", add_wheels)
    pack.build(out, data, ["mnist"], 60)
    assert {path.name for path in out.iterdir()} == {"COMMIT", "data", "run.sh", "source", "wheels"}
    head = pack.git("rev-parse", "HEAD").strip()
    assert (out / "COMMIT").read_text() in (f"{head}\n", f"{head}+modified\n")
    for name in ("pyproject.toml", "tests/conftest.py", "scripts/benchmark.py"):
        assert (out / "source" / name).read_bytes() == (GPU.parents[1] / name).read_bytes()
    assert not list(out.rglob("__pycache__"))

    tracked = [GPU.parents[1] / name for name in pack.git("ls-files", "-z").split("\0") if name]
    everything = pack.size([*out.rglob("*"), *tracked])
    pack.check_size(out, everything / pack.MIB)
    (out / "mine").write_text("kept")
    with pytest.raises(UserError, match="--max-mib"):
        pack.build(out, data, ["mnist"], (everything - 1) / pack.MIB)
    assert (out / "mine").is_file() and not packed[-1].exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "data"}


def test_a_folder_that_is_no_pack_stays(pack, tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(UserError, match="not a pack"):
        pack.build(tmp_path, tmp_path, [], 60)
    assert (tmp_path / "mine").is_file()


@pytest.fixture
def node(tmp_path):
    """A pack on a node whose Python only notes how it is called and ends as it is told."""
    folder, bin_folder = tmp_path / "pack", tmp_path / "bin"
    for name in ("data/MNIST", "wheels", "source/tests/cuda"):
        (folder / name).mkdir(parents=True)
    bin_folder.mkdir()
    (folder / "COMMIT").write_text("0123abc\n")
    shutil.copyfile(GPU / "run.sh", folder / "run.sh")
    python = bin_folder / "python3"
    python.write_text(
        '#!/bin/sh\necho "$SPINAL_COMMIT $*" >> "$CALLS"\ncase "$*" in\n'
        '*"-m pytest"*) echo tested; exit "$TESTS";;\n*benchmark.py*) exec sleep "$SLEEP";;\n'
        '*"paper run"*) for word; do [ "$last" != --out ] || touch "$word"; last=$word; done\n'
        'exit "$EVIDENCE";;\n'
        '*"-m zipfile"*) mkdir -p "$5"; echo "1 of 9 runs finished, $FAILED failed." > '
        '"$5/summary.md";;\nesac\n'
    )
    python.chmod(0o755)

    def call(*arguments, tests=0, sleep=0, evidence=75, failed=0):
        settings = {"TESTS": tests, "SLEEP": sleep, "EVIDENCE": evidence, "FAILED": failed}
        return subprocess.run(
            ["bash", str(folder / "run.sh"), *arguments],
            cwd=tmp_path,
            env={
                "PATH": f"{bin_folder}:{os.environ['PATH']}",
                "CALLS": str(tmp_path / "calls"),
                **{key: str(value) for key, value in settings.items()},
            },
            capture_output=True,
            text=True,
            timeout=30,
        )

    return call


def test_all_parts_run_in_order_and_name_the_commit(node, tmp_path):
    done = node("out", "--device", "cpu", "data.limit=9", "recipe.epochs=2", tests=5)
    assert done.returncode == 0, done.stdout + done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert all(call.startswith("0123abc ") for call in calls)
    wanted = ["-m pip install", "- cpu", "-m cuda", "--parts loops profiles", "data.limit=9", "-e"]
    assert len(calls) == len(wanted)
    for call, part in zip(calls, wanted, strict=True):
        assert part in call
    assert "runtime.device=cpu data.limit=9 recipe.epochs=2 --seeds" in calls[-2]
    assert (tmp_path / "out" / "summary.md").read_text().startswith("1 of 9")
    assert (tmp_path / "out" / "tests.txt").read_text() == "tested\n"
    assert done.stdout == (tmp_path / "out" / "log.txt").read_text()


def test_a_part_that_fails_or_hangs_does_not_stop_the_next(node, tmp_path):
    done = node("out", "--minutes", "0.5", "--device", "cpu", tests=1, sleep=60)
    assert done.returncode == 1
    assert done.stdout.endswith("failed: tests benchmark\n"), done.stdout
    assert "paper run" in (tmp_path / "calls").read_text().splitlines()[-2]


def test_runs_that_failed_are_told_though_others_are_left(node):
    done = node("out", "--device", "cpu", failed=2)
    assert done.returncode == 1 and done.stdout.endswith("failed: runs\n"), done.stdout


def test_what_has_no_time_left_is_left_out(node, tmp_path):
    done = node("out", "--minutes", "0.2", "--device", "cpu")
    assert done.returncode == 0 and "evidence: left out" in done.stdout
    assert "paper run" not in (tmp_path / "calls").read_text()


@pytest.mark.parametrize(
    "wrong", [["--minutes", "x"], ["--minutes"], ["--device", "gpu"], ["a", "b"], ["--other"]]
)
def test_wrong_arguments_are_refused(node, tmp_path, wrong):
    done = node(*wrong)
    assert done.returncode == 2 and done.stderr.startswith("run.sh: ")
    assert {path.name for path in tmp_path.iterdir()} == {"pack", "bin"}


def test_results_of_an_earlier_call_stay(node, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "log.txt").write_text("before")
    assert node("out").returncode == 2
    assert (tmp_path / "out" / "log.txt").read_text() == "before"


def test_the_script_passes_shellcheck():
    subprocess.run(["bash", "-n", str(GPU / "run.sh")], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", str(GPU / "run.sh")], check=True)
