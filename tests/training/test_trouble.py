"""Two processes, full and read-only disks, data that change, no memory: one clear message."""

import errno
import itertools
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.idx_files import write_dataset
from helpers.interrupting import StopAt, interrupted, results
from helpers.variety import SMALL, small

from spinal_repro.config.compose import compose
from spinal_repro.errors import EXIT_BUSY, EXIT_FAILED, UserError
from spinal_repro.io import is_locked, read_json, run_lock
from spinal_repro.models.classifier import Classifier
from spinal_repro.records.store import write_status
from spinal_repro.training.checkpoint import Checkpoint
from spinal_repro.training.run import run

FULL, READ_ONLY = (re.escape(os.strerror(number)) for number in (errno.ENOSPC, errno.EROFS))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_a_second_process_ends_with_69_and_changes_nothing(tmp_path, call):
    config = small(tmp_path)
    folder = interrupted(config, StopAt(epoch=1))
    with run_lock(folder):
        write_status(folder, "running")
        before = contents(folder)
        ended = call("spinal-train", f"runs={tmp_path}", *SMALL)
        assert ended.code == EXIT_BUSY == 69
        who = f"process {os.getpid()} on {socket.gethostname()} is training the run"
        assert who in ended.err and is_locked(folder) and contents(folder) == before
    assert not is_locked(folder)
    assert len(run(config).record.history) == 3


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a tmpfs needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_while_training(tmp_path, monkeypatch, small_disk):
    """The checkpoint of the second epoch does not fit; that of the first stays."""
    config, save, filler = small(small_disk), Checkpoint.save, small_disk / "filler"

    def then_fill(self, training):
        save(self, training)
        with pytest.raises(OSError, match=FULL):
            filler.write_bytes(bytes(1 << 22))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", then_fill)
        with pytest.raises(UserError, match=FULL):
            run(config)
    saved = (config.run_dir / "last.pt").read_bytes()
    with pytest.raises(UserError, match=rf"{FULL}.*the same command"):  # again, from the start
        run(config)
    assert (config.run_dir / "last.pt").read_bytes() == saved
    assert not list(config.run_dir.glob(".*.partial"))
    filler.unlink()
    parts = run(config)
    assert "resuming after epoch 1" in (config.run_dir / "log.txt").read_text()
    assert results(parts.folder) == results(run(small(tmp_path / "whole")).folder)


def test_a_read_only_folder(small_disk):
    config = small(small_disk)
    folder = interrupted(config, StopAt(epoch=1))
    before = contents(folder)
    again = ["mount", "-o", "remount,ro", str(small_disk)]
    if subprocess.run(again, capture_output=True).returncode != 0:
        pytest.skip("this tmpfs cannot be remounted")
    for again in (config, small(small_disk, "seed=1")):
        with pytest.raises(UserError, match=f"cannot be written.*{READ_ONLY}"):
            run(again)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("which", "what"), [("train-images", "training images"), ("t10k-labels", "test images")]
)
def test_data_that_change_or_vanish_while_a_run_is_stopped(tmp_path, which, what):
    root = tmp_path / "data"
    write_dataset(root, compose(["dataset=mnist"]).dataset, 60, 30)
    config = small(
        tmp_path / "runs", "dataset=mnist", "dataset.train_size=60", "dataset.test_size=30",
        "data.limit=null", f"data.root={root}",
    )  # fmt: skip
    folder = interrupted(config, StopAt(epoch=1))
    saved, (path,) = (folder / "last.pt").read_bytes(), root.rglob(f"{which}*")
    right = path.read_bytes()
    path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    with pytest.raises(UserError, match=f"changed since the run .* began: {what}"):
        run(config)
    path.unlink()
    with pytest.raises(UserError, match="MNIST"):
        run(config)
    status = read_json(folder / "status.json")
    assert status["state"] == "failed" and "MNIST" in status["message"]
    assert (folder / "last.pt").read_bytes() == saved
    path.write_bytes(right)
    assert len(run(config).record.history) == 3


OUT_OF_MEMORY = (  # as PyTorch says it
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB of "
    "which 10.19 MiB is free. Process 7 has 79.09 GiB memory in use."
)


def test_a_device_without_enough_memory_is_one_message(tmp_path, monkeypatch, call):
    """In the second epoch; with memory again, the same command resumes."""
    forward, calls = Classifier.forward, itertools.count()

    def fails(self, images):
        if self.training and next(calls) == 4:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)
        return forward(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "forward", fails)
        ended = call("spinal-train", f"runs={tmp_path}", *SMALL)
    (line,) = ended.err.splitlines()
    assert ended.code == EXIT_FAILED
    assert line.startswith("spinal-train: CUDA out of memory. Tried to allocate 20.00 MiB. ")
    assert "recipe.batch_size" in line
    config = small(tmp_path)
    status = read_json(config.run_dir / "status.json")
    assert status["state"] == "failed" and "traceback" not in status
    assert len(run(config).record.history) == 3
    assert "resuming after epoch 1" in (config.run_dir / "log.txt").read_text()
