"""Choice of the next run when time is limited: runs that are expected to finish, pairs together.

Nothing here trains, reads a clock or imports torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Generic, TypeVar

PUT_OFF, DEADLINE = "put off", "stopped at the deadline"


@dataclass
class Job:
    """One run of a cell."""

    cell: str
    seed: int
    epochs: int
    done: int = 0  # epochs in its checkpoint
    state: str = ""  # how it ended; empty while it can be started or continued
    put_off: bool = False  # begun, but too long for the time left


J = TypeVar("J", bound=Job)


def in_order(cells: Mapping[str, str | None], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Order runs so that both cells of a pair have a seed before any has the next.

    Args:
        cells: Names, each with its counterpart.
    """
    groups: dict[str, list[str]] = {}
    for cell, counterpart in cells.items():
        name = counterpart if counterpart is not None and counterpart in cells else cell
        groups.setdefault(name, []).append(cell)
    return [(cell, seed) for group in groups.values() for seed in seeds for cell in group]


@dataclass
class TimeBox(Generic[J]):
    """Jobs and a deadline; every ``now`` is in seconds on the deadline's clock.

    The time of an epoch is measured for each cell, from the end of one epoch to the end of the
    next: the first epoch of a run, which warms up, does not count. Until a job has trained, one is
    started even if it cannot finish, so that the same command makes progress when repeated.
    """

    jobs: Sequence[J]
    deadline: float
    trained: bool = False
    _epoch: dict[str, float] = field(default_factory=dict)  # seconds, by cell
    _rest: dict[str, float] = field(default_factory=dict)  # of a whole run, besides its epochs
    _ends: list[float] = field(default_factory=list)  # start of the current job, then its epochs

    def learn(self, cell: str, epochs: Sequence[float]) -> None:
        """Use the epochs of a finished run, in seconds, as a measurement."""
        self._epoch.setdefault(cell, median(epochs[1:] or epochs))

    def needs(self, job: J) -> float | None:
        """Return the seconds that a job is expected to take; None before any measurement."""
        if job.cell not in self._epoch:
            return None
        return (job.epochs - job.done) * self._epoch[job.cell] + self._rest.get(job.cell, 0.0)

    def next(self, now: float) -> J | None:
        """Return the job to train next, or None.

        The first one that is expected to finish, or is unknown; else one that has begun, if
        another epoch fits.
        """
        waiting = [job for job in self.jobs if not job.state] if now < self.deadline else []
        fitting = [job for job in waiting if self._may_finish(job, now)]
        begun = [job for job in waiting if job.done and self._epoch_fits(job, now)]
        others = [] if self.trained else waiting
        return next(iter([*fitting, *begun, *others]), None)

    def begin(self, now: float) -> None:
        """Note the start of a job."""
        self._ends = [now]

    def epoch_ended(self, job: J, done: int, now: float) -> str:
        """Note the epochs that the current job has; return why to stop it, or an empty string."""
        self.trained = True
        self._ends.append(now)
        job.done = done
        if len(self._ends) > 2:
            self._epoch[job.cell] = median(b - a for a, b in pairwise(self._ends[1:]))
        if self.needs(job) is not None and not job.put_off and not self._may_finish(job, now):
            rest = (other for other in self.jobs if other is not job and not other.state)
            job.put_off = any(self._may_finish(other, now) for other in rest)
            if job.put_off:
                return PUT_OFF
        return "" if self._epoch_fits(job, now) else DEADLINE

    def end(self, job: J, now: float) -> None:
        """Note the end of the current job, after its ``state`` is set."""
        epochs = len(self._ends) - 1
        if epochs:
            seconds = now - self._ends[0]
            measured = self._epoch.setdefault(job.cell, seconds / epochs)
            if job.state == "done":
                self._rest[job.cell] = max(0.0, seconds - epochs * measured)

    def _may_finish(self, job: J, now: float) -> bool:
        return not job.put_off and now + (self.needs(job) or 0.0) <= self.deadline

    def _epoch_fits(self, job: J, now: float) -> bool:
        last = self._ends[-1] - self._ends[-2] if len(self._ends) > 1 else 0.0
        return now + self._epoch.get(job.cell, last) <= self.deadline
