"""Sweeps whose jobs a launcher of Hydra's runs elsewhere: with joblib, or on a cluster.

Every job is composed and checked before the first one is handed over, and what became of each is
collected when all have ended. Importing this imports neither torch nor a launcher.
"""

import importlib.util
import os
import platform
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from spinal_repro.config import compose
from spinal_repro.errors import UserError
from spinal_repro.files import read_json, write_json
from spinal_repro.schema import Config
from spinal_repro.text import tell

KEY = "hydra/launcher"
OWN = ("basic", "processes")  # these check and report by themselves
EXTRAS = {"submitit": "slurm", "slurm": "slurm", "joblib": "parallel"}  # by how names begin
PLUGINS = {"slurm": "hydra_submitit_launcher", "parallel": "hydra_joblib_launcher"}


class Jobs(list[tuple[str, str]]):
    """How each job of a sweep ended: what it was, and why it failed or an empty text.

    A copy in another process writes its outcomes into ``folder``, where `collect` finds them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder: Path | None = None
        self._home = _process()

    def append(self, outcome: tuple[str, str]) -> None:
        """Note how a job ended."""
        if self.folder is None or _process() == self._home:
            super().append(outcome)
        else:
            write_json(self.folder / f"{uuid.uuid4().hex}.json", outcome)

    def collect(self) -> None:
        """Take what the other processes noted."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
            what, why = read_json(path)
            self.append((what, why))
            path.unlink()
        self.folder.rmdir()


def _process() -> tuple[str, int]:
    return platform.node(), os.getpid()  # numbers of processes repeat from machine to machine


@contextmanager
def elsewhere(arguments: Sequence[str], jobs: Jobs, extra_dirs: Sequence[Path]) -> Iterator[None]:
    """What is inside hands the jobs of a sweep to the launcher that the command line chooses.

    Args:
        arguments: Of the command line.
        jobs: Filled with how they ended. Nothing is done for a launcher of ours.
        extra_dirs: Folders with configuration of the user's own.

    Raises:
        UserError: before anything is started, for a launcher that is not installed and naming
            every job that cannot be run; afterwards, where the launcher failed.
    """
    launcher = launcher_of(arguments)
    if launcher is None or launcher in OWN:
        yield
        return
    _check_installed(launcher)
    configs = check_jobs(arguments, extra_dirs)
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    jobs.folder = Path(configs[0].runs).absolute() / ".sweeps" / name
    jobs.folder.mkdir(parents=True, exist_ok=True)
    tell(f"{len(configs)} jobs checked; {launcher} runs them")
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, OSError):
        raise
    except Exception as error:
        raise UserError(
            f"{launcher} gave up: {type(error).__name__}: {str(error).strip().splitlines()[0]}; "
            f"spinal status shows how far each run is, and the same command continues them"
        ) from error
    finally:
        jobs.collect()


def launcher_of(arguments: Sequence[str]) -> str | None:
    """The launcher that a command line chooses, if any."""
    found = [a.partition("=")[2] for a in arguments if a.lstrip("+").startswith(f"{KEY}=")]
    return found[-1] if found else None


def _check_installed(launcher: str) -> None:
    for beginning, extra in EXTRAS.items():
        plugin = f"hydra_plugins.{PLUGINS[extra]}"
        if launcher.startswith(beginning) and importlib.util.find_spec(plugin) is None:
            raise UserError(
                f"{KEY}={launcher} needs what is not installed: pip install 'spinal-repro[{extra}]'"
            )


def check_jobs(arguments: Sequence[str], extra_dirs: Sequence[Path] = ()) -> list[Config]:
    """Compose and check every job of a sweep, down to the model, without data or a device.

    Raises:
        UserError: naming every job that cannot be run.
    """
    from spinal_repro.check import check_parts

    extra = extra_dirs[0] if extra_dirs else None
    configs, refused, checked = [], [], set()
    for overrides in _jobs(arguments):
        try:
            config = compose(overrides, extra)
            if config.identity() not in checked:  # seeds differ in nothing that could be wrong
                check_parts(config)
                checked.add(config.identity())
            configs.append(config)
        except UserError as error:
            refused.append(f"{' '.join(overrides)}: {error}")
    if refused:
        raise UserError("no job was started, since some cannot be run:\n  " + "\n  ".join(refused))
    return configs


def _jobs(arguments: Sequence[str]) -> list[list[str]]:
    """The overrides of each job; those of Hydra itself are left out."""
    words = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    ours = [a for a in words if not a.lstrip("+~").startswith("hydra")]
    overrides = OverridesParser.create().parse_overrides(ours)
    for override in overrides:
        if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
            raise UserError(f"with {KEY}, name the choices of {override.key_or_group} one by one")
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    return [list(job) for job in jobs]


@contextmanager
def requeued() -> Iterator[None]:
    """What is inside is a run; where submitit's signal stops it, it is put in the queue again.

    submitit's own handler leaves at once, wherever the program is. Here a run that listens to
    SIGUSR1 is told by it to save first, and the handler is called when it has.
    """
    if "SUBMITIT_EXECUTOR" not in os.environ:
        yield
        return
    number = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))
    requeue: Any = signal.getsignal(number)
    asked = False

    def ask(received: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if number != signal.SIGUSR1 and callable(signal.getsignal(signal.SIGUSR1)):
            signal.raise_signal(signal.SIGUSR1)
        else:
            requeue(received, frame)

    signal.signal(number, ask)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        if asked and not isinstance(error, SystemExit):
            tell(f"{error or 'stopped'}; requeued", error=True)
            requeue(number, None)
        raise
    finally:
        signal.signal(number, requeue)
