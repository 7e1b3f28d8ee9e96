"""A job of a sweep, and what the folder of its run says of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spinal_repro.errors import UserError
from spinal_repro.files import make_folder
from spinal_repro.records import describe, write_status
from spinal_repro.schema import Config
from spinal_repro.sweep.worker import in_other_hands


@dataclass
class Job:
    """One run of a sweep.

    Attributes:
        what: For people.
        config: As composed; None where it is refused.
        folder: Of the run; None as long as it is not known.
        state: As in ``status.json``.
        message: Why it did not finish, in one line; or what came out.
        accuracy: On the selecting split, at the selected epoch.
    """

    what: str
    config: Config | None = None
    folder: Path | None = None
    state: str = "waiting"
    message: str = ""
    accuracy: float | None = None

    @property
    def can_go_on(self) -> bool:
        """Whether nothing is wrong but that the sweep was stopped."""
        return self.state in ("waiting", "interrupted")

    @property
    def why_not(self) -> str:
        """Why it is not done; empty if it is."""
        if self.state == "done":
            return ""
        return self.message if self.state == "failed" else f"{self.state} {self.message}"


def waiting_jobs(jobs: Sequence[Job], on_end: Callable[[Job], None]) -> list[Job]:
    """The jobs whose folders say that they wait; where that cannot be written, one has failed."""
    waiting = []
    for job in jobs:
        try:
            note(job)
        except UserError as error:
            job.state, job.message = "failed", str(error)
            on_end(job)
        else:
            waiting.append(job)
    return waiting


def note(job: Job, *pids: int | None) -> None:
    """Write a job's state into its folder, unless another process is at work there.

    Raises:
        UserError: where the folder cannot be written.
    """
    assert job.folder is not None
    if in_other_hands(job.folder, *(pid for pid in pids if pid is not None)):
        return
    try:
        make_folder(job.folder)
        message = {"message": job.message} if job.message else {}
        epochs = describe(job.folder).get("epochs", "")
        write_status(job.folder, job.state, epochs=epochs, **message)
    except OSError as error:
        raise UserError(f"the run folder {job.folder} cannot be written: {error}") from error
