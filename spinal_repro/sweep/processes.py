"""How the processes of a sweep are started, on each system."""

import multiprocessing
import signal
import sys
import tempfile
from multiprocessing import forkserver, resource_tracker, util
from typing import Any

from spinal_repro.sweep.worker import PRELOADED
from spinal_repro.training.stop import SIGNALS

MAX_TEMP = 70  # characters of the folder for temporary files; a socket in it may have 107


def start_context() -> Any:
    """How processes are started: forked from a clean server, where forking is safe.

    The server runs afterwards, deaf to signals that ask to stop: they go to whole groups of
    processes, and it tells how jobs end, so it has to outlive them. Each job, which inherits what
    is held back, listens again (`keep_to_itself`).
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    _place_sockets()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *PRELOADED])
    resource_tracker.ensure_running()  # first: where it has to be started, it lets signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _place_sockets() -> None:
    """Have multiprocessing make its folder, once and for all, where names of sockets fit."""
    usual = tempfile.tempdir
    if len(tempfile.gettempdir()) > MAX_TEMP:
        tempfile.tempdir = "/tmp"
    try:
        util.get_temp_dir()
    finally:
        tempfile.tempdir = usual
