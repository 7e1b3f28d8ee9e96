"""Two processes, full and read-only disks, data that vanish, no locks, no memory."""

import errno
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.idx_files import write_dataset
from helpers.interrupting import StopAt, files, interrupted
from helpers.variety import SMALL, small

from spinal_repro.cli import train as cli
from spinal_repro.config.compose import compose
from spinal_repro.errors import EXIT_BUSY, EXIT_FAILED, UserError
from spinal_repro.io import NO_LOCKS, BusyError, is_locked, read_json
from spinal_repro.models.classifier import Classifier
from spinal_repro.records.store import write_status
from spinal_repro.training.checkpoint import Checkpoint
from spinal_repro.training.run import run

FULL, READ_ONLY = (re.escape(os.strerror(number)) for number in (errno.ENOSPC, errno.EROFS))
HOLD = (
    "import sys\n"
    "from filelock import FileLock\n"
    "lock = FileLock(sys.argv[1])\n"
    "lock.acquire()\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.mark.parametrize("number", NO_LOCKS)
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    """The run continues without a lock, and an old lock file does not block it."""
    fcntl = pytest.importorskip("fcntl")

    def flock(*_given):
        raise OSError(number, os.strerror(number))

    config = small(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        folder = interrupted(config, StopAt(epoch=1))
        (folder / ".lock").write_text("of a process that was killed")
        assert len(run(config).record.history) == 3


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_a_second_process_is_told_and_changes_nothing(tmp_path, monkeypatch, capsys):
    config = small(tmp_path / "runs")
    folder = interrupted(config, StopAt(epoch=1))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        write_status(folder, "running", pid=holder.pid)
        before = contents(folder)
        assert is_locked(folder)
        who = f"process {holder.pid} on {socket.gethostname()} is training the run"
        with pytest.raises(BusyError, match=who):
            run(config)
        arguments = [f"runs={tmp_path / 'runs'}", *SMALL]
        monkeypatch.setattr(sys, "argv", ["spinal-train", *arguments])
        monkeypatch.chdir(tmp_path)
        assert cli._main(arguments) == EXIT_BUSY == 69
        assert who in capsys.readouterr().err
        assert contents(folder) == before
    finally:
        holder.kill()  # the lock ends with its process, whatever ends that
        holder.communicate()
    assert not is_locked(folder)
    assert len(run(config).record.history) == 3


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a tmpfs needs root")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Leave no byte."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return filler


def test_a_full_disk(tmp_path, small_disk, capsys):
    whole = run(small(tmp_path / "whole"))
    config = small(small_disk)
    folder = interrupted(config, StopAt(epoch=1))
    filler = fill(small_disk)
    saved = (folder / "last.pt").read_bytes()
    with pytest.raises(UserError, match=rf"{FULL}.*the same command continues"):
        run(config)
    assert "Traceback" not in capsys.readouterr().err
    assert (folder / "last.pt").read_bytes() == saved
    assert not list(folder.glob(".*.partial"))
    filler.unlink()
    assert files(run(config)) == files(whole)


def test_a_disk_that_fills_while_training(monkeypatch, small_disk):
    """The checkpoint of the second epoch does not fit; the one of the first stays."""
    config, save, fillers = small(small_disk), Checkpoint.save, []

    def then_fill(self, training):
        save(self, training)
        if not fillers:
            fillers.append(fill(small_disk))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", then_fill)
        with pytest.raises(UserError, match=FULL):
            run(config)
    fillers[0].unlink()
    assert len(run(config).record.history) == 3
    assert "continuing after epoch 1" in (config.run_dir / "log.txt").read_text()


def test_a_read_only_folder(small_disk):
    config = small(small_disk)
    folder = interrupted(config, StopAt(epoch=1))
    before = contents(folder)
    again = ["mount", "-o", "remount,ro", str(small_disk)]
    if subprocess.run(again, capture_output=True).returncode != 0:
        pytest.skip("this tmpfs cannot be remounted")
    with pytest.raises(UserError, match=f"cannot be written.*{READ_ONLY}"):
        run(config)
    with pytest.raises(UserError, match=f"cannot be written.*{READ_ONLY}"):
        run(small(small_disk, "seed=1"))
    assert contents(folder) == before
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert len(run(config).record.history) == 3


MNIST = ["dataset=mnist", "dataset.train_size=60", "dataset.test_size=30", "data.limit=null"]


def test_data_that_vanish(tmp_path):
    root = tmp_path / "data"
    write_dataset(root, compose(["dataset=mnist"]).dataset, 60, 30)
    whole = run(small(tmp_path / "whole", *MNIST, f"data.root={root}"))
    config = small(tmp_path / "parts", *MNIST, f"data.root={root}")
    folder = interrupted(config, StopAt(epoch=1))
    saved = (folder / "last.pt").read_bytes()
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="MNIST"):
        run(config)
    status = read_json(folder / "status.json")
    assert status["state"] == "failed" and "MNIST" in status["message"]
    assert (folder / "last.pt").read_bytes() == saved
    (tmp_path / "elsewhere").rename(root)
    assert files(run(config)) == files(whole)


@pytest.mark.parametrize(
    ("which", "what"), [("train-images", "training images"), ("t10k-labels", "test images")]
)
def test_data_that_change_while_a_run_is_stopped(tmp_path, which, what):
    root = tmp_path / "data"
    write_dataset(root, compose(["dataset=mnist"]).dataset, 60, 30)
    config = small(tmp_path / "runs", *MNIST, f"data.root={root}")
    folder = interrupted(config, StopAt(epoch=1))
    saved, (path,) = (folder / "last.pt").read_bytes(), root.rglob(f"{which}*")
    right = path.read_bytes()
    path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    with pytest.raises(UserError, match=f"began with other {what}"):
        run(config)
    assert (folder / "last.pt").read_bytes() == saved
    path.write_bytes(right)
    assert len(run(config).record.history) == 3


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    config = small(tmp_path)
    folder = interrupted(config, StopAt(epoch=1))
    (folder / ".last.pt.123.partial").write_bytes(b"half a check")
    run(config)
    assert not list(folder.glob(".*.partial"))


def test_a_failing_command_exits_with_one(tmp_path, monkeypatch):
    arguments = [f"runs={tmp_path / 'runs'}", *SMALL, "recipe.lr=1e30"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["spinal-train", *arguments])
    assert cli._main(arguments) == EXIT_FAILED


OUT_OF_MEMORY = (  # as PyTorch says it
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB of "
    "which 10.19 MiB is free. Process 7 has 79.09 GiB memory in use. If reserved but unallocated "
    "memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
)


def test_a_device_without_enough_memory_is_one_message(tmp_path, monkeypatch, capsys):
    """In the second epoch; with memory again, the same command continues."""
    config = small(tmp_path, "runtime.save_every=1e-9")
    forward, calls = Classifier.forward, itertools.count()

    def fails(self, images):
        if self.training and next(calls) == 4:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)
        return forward(self, images)

    arguments = [f"runs={tmp_path}", *SMALL, "runtime.save_every=1e-9", "hydra.run.dir=."]
    monkeypatch.setattr(sys, "argv", ["spinal-train", *arguments])
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "forward", fails)
        assert cli._main(arguments) == EXIT_FAILED
    said = capsys.readouterr().err
    (line,) = said.splitlines()
    assert line.startswith("spinal-train: CUDA out of memory. Tried to allocate 20.00 MiB. ")
    assert "recipe.batch_size" in line and "Traceback" not in line
    status = read_json(config.run_dir / "status.json")
    assert status["state"] == "failed" and "traceback" not in status
    assert len(run(config).record.history) == 3
    assert "continuing after epoch 1" in (config.run_dir / "log.txt").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_that_nobody_can_take_stops_no_training(tmp_path):
    """Standard output goes to a full disk, the run to one with room; issued twice."""
    arguments = [f"runs={tmp_path}", *SMALL, "runtime.progress=lines", "hydra.run.dir=."]
    for _ in range(2):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "spinal_repro.cli.train", *arguments],
                cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
    (record,) = tmp_path.rglob("record.json")
    assert "test accuracy" in (record.parent / "log.txt").read_text()
