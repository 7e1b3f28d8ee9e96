"""One process a run: an operating system's lock, which ends with the process that holds it."""

from pathlib import Path
from types import TracebackType

from filelock import Timeout

from spinal_repro.errors import EXIT_BUSY, UserError
from spinal_repro.files import clean, make_folder, read_json
from spinal_repro.locks import acquire, file_lock
from spinal_repro.records import STATUS

LOCK = ".lock"


class BusyError(UserError):
    """Another process trains this run."""

    exit_code = EXIT_BUSY


class RunLock:
    """Context in which a run folder, once taken, belongs to this process.

    A folder that is there is taken at once; one that is not only by `take`, so that a run that
    cannot begin leaves no trace.

    Args:
        folder: Of the run.
        owner: Whether this process is the one that writes; the others of a run never take it.

    Attributes:
        held: Whether the folder is taken.
        absent: Whether its file system has no locks, and the folder is taken without.
    """

    def __init__(self, folder: Path, owner: bool = True) -> None:
        self.held = self.absent = False
        self._owner, self._folder, self._lock = owner, folder, file_lock(folder / LOCK)
        self._file: int | None = None  # the number of the file that is locked

    def __enter__(self) -> "RunLock":
        if self._folder.is_dir():
            self.take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._lock.release()

    def take(self) -> None:
        """Make the folder and lock it, unless that is done; remove what killed writers left.

        Raises:
            BusyError: naming the process that has it.
            UserError: where the folder cannot be written.
        """
        if self.held or not self._owner:
            return
        try:
            make_folder(self._folder)
            self.absent = not acquire(self._lock, timeout=0)
            if not self.absent:
                self._file = (self._folder / LOCK).stat().st_ino
        except Timeout:
            raise BusyError(_who(self._folder)) from None
        except OSError as error:
            raise UserError(f"the run folder {self._folder} cannot be written: {error}") from error
        self.held = True
        clean(self._folder)

    @property
    def lost(self) -> bool:
        """Whether the folder was removed since; one of the same name may be another process's."""
        try:
            found = (self._folder / LOCK).stat().st_ino
        except (FileNotFoundError, NotADirectoryError):
            return self._file is not None
        except OSError:  # it shows when something is written
            return False
        return self._file not in (None, found)

    def check(self) -> None:
        """To be called before anything is saved.

        Raises:
            UserError: where the folder was removed.
        """
        if self.lost:
            raise gone(self._folder)


def gone(folder: Path) -> UserError:
    """What to tell where a folder was removed under a run."""
    return UserError(
        f"the run folder {folder} was removed while this run was at work, or its {LOCK} was; "
        f"nothing more is written there. The same command goes on with what is there by then, or "
        f"starts anew"
    )


def _who(folder: Path) -> str:
    """Who holds a folder, as far as its status says."""
    try:
        status = read_json(folder / STATUS)
        who = f"process {status['pid']} on {status.get('host', 'this machine')}"
        when = f", last heard of at {status['time']}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        who, when = "another process", ""
    return (
        f"{who} is training this run{when}; nothing was changed in {folder}. Wait for it, or stop "
        f"it first (it saves where it stands)"
    )
