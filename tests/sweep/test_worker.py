"""The process of a job, where what it says cannot be written."""

import errno
import io
import multiprocessing
import os
import sys

import pytest

from spinal_repro.config import compose
from spinal_repro.errors import UserError
from spinal_repro.sweep import worker

SMALL = ("data.limit=60", "recipe.epochs=1", "runtime.progress=none", "runtime.device=cpu")


class Full(io.StringIO):
    """As a file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("error", [UserError("out of luck"), RuntimeError("out of luck")])
def test_a_job_says_why_it_failed_though_nothing_can_be_written(tmp_path, monkeypatch, error):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Full())
        told = worker._ended(tmp_path / "nowhere", error)
    assert told["state"] == "failed" and "out of luck" in told["message"]


@pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")
def test_a_job_whose_folder_cannot_be_written_says_so(tmp_path):
    config = compose([*SMALL, f"runs={tmp_path}"])
    folder = config.run_dir
    folder.parent.mkdir(parents=True)
    folder.touch()
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=worker.work, args=(config, folder, 1, None, send))
    process.start()
    send.close()
    told = receive.recv()
    process.join()
    assert told["state"] == "failed" and f"{folder} cannot be written" in told["message"]


def print_to(path, text):
    worker._print_to(path)
    print(text)


@pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")
def test_what_another_process_printed_stays(tmp_path):
    for text in ("first", "second"):
        process = multiprocessing.get_context("fork").Process(
            target=print_to, args=(tmp_path / "output.txt", text)
        )
        process.start()
        process.join()
    assert (tmp_path / "output.txt").read_text().split() == ["first", "second"]
