"""What happens in the process of a job. Heavy imports come inside: the parent imports this too."""

import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from spinal_repro.errors import UserError
from spinal_repro.records import RECORD, STATUS, describe, explained, is_alive, write_status
from spinal_repro.schema import Config
from spinal_repro.training.stop import SIGNALS, Stop

PRELOADED = ("spinal_repro.training.run",)  # once, by the server that forks the jobs
OUTPUT = "output.txt"  # in a run's folder: what its process printed


@dataclass(frozen=True)
class Found:
    """What this machine and the data make of a configuration.

    Attributes:
        folder: Of the run; None where the configuration is refused.
        device: ``cpu``, ``cuda`` or ``mps``.
        done: Whether the run is finished.
        refusal: What a user has to mend.
    """

    folder: Path | None = None
    device: str = ""
    done: bool = False
    refusal: str = ""


def resolve_all(configs: list[Config], answer: Connection) -> None:
    """Tell the parent, which has no torch, what each configuration stands for.

    It hears no signals: the parent, which does, ends it.

    Sends:
        A list of `Found`, and the number of CUDA devices.
    """
    import torch

    from spinal_repro.training.run import resolved

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where the others are not blocked, they end it
    found = []
    for config in configs:
        try:
            config = resolved(config)
            folder, device = config.run_dir, config.runtime.device
            found.append(Found(folder, device, (folder / RECORD).is_file()))
        except (UserError, OSError) as error:
            found.append(Found(refusal=str(error)))
    with suppress(BrokenPipeError):  # the parent was killed
        answer.send((found, torch.cuda.device_count()))


def work(
    config: Config, folder: Path, threads: int, device: str | None, answer: Connection
) -> None:
    """Do one run.

    Sends:
        How it ended: ``state``, and ``message`` or the selected ``accuracy`` and ``summary``.
    """
    try:
        keep_to_itself()
        with Stop():
            with suppress(OSError):  # the run says what is wrong with its folder
                _print_to(folder / OUTPUT)
            if device is not None:  # before anything asks for a device
                os.environ["CUDA_VISIBLE_DEVICES"] = device
            import torch

            from spinal_repro.outputs import summary
            from spinal_repro.training.run import run

            torch.set_num_threads(threads)
            record = run(config).record
    except BaseException as error:
        answer.send(_ended(folder, error))
        raise SystemExit(1) from error
    answer.send(
        {
            "state": "done",
            "accuracy": record["selection"]["accuracy"],
            "summary": summary(record, folder / RECORD)[0],
        }
    )


def _ended(folder: Path, error: BaseException) -> dict[str, Any]:
    """How a run ended that did not finish; its status says so too, where it can be written."""
    told = explained(error)
    if not isinstance(error, Exception):  # asked to stop
        return {"state": "interrupted", "message": told["message"]}
    with suppress(OSError):
        if "traceback" in told:
            print(told["traceback"], file=sys.stderr, flush=True)
    with suppress(OSError):
        if not in_other_hands(folder, os.getpid()):
            epochs = describe(folder).get("epochs", "")
            write_status(folder, "failed", epochs=epochs, **told)
    return {"state": "failed", "message": told["message"]}


def in_other_hands(folder: Path, *ours: int) -> bool:
    """Whether a process other than those named is running a run just now."""
    from spinal_repro.files import read_json

    try:
        status = read_json(folder / STATUS)
        return status["state"] == "running" and status["pid"] not in ours and is_alive(status)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def keep_to_itself() -> None:
    """Listen to signals, from the parent alone, and stop as if told to when it is gone.

    Ctrl-C on a terminal goes to a whole group of processes: the job would be told twice.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # see `start_context`

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _print_to(path: Path) -> None:
    """Lines of several jobs on one terminal would be nobody's.

    What another process says there stays: it may be at work on the same run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
