"""Which run comes next when time is limited: those that are expected to finish, pairs together.

Nothing here trains or reads a clock, and torch is never imported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Generic, TypeVar


@dataclass
class Job:
    """One run of a cell.

    Attributes:
        cell: Its name.
        seed: Its seed.
        epochs: Of the whole run.
        done: Epochs that its checkpoint has.
        state: How it ended; empty as long as it may still be started or continued.
        put_off: Whether it was begun, and is too long for the time left.
    """

    cell: str
    seed: int
    epochs: int
    done: int = 0
    state: str = ""
    put_off: bool = False


J = TypeVar("J", bound=Job)


def in_order(cells: Mapping[str, str | None], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Cells with seeds, where all cells of a pair have one seed before any has the next.

    Args:
        cells: Names, each with the cell that it is compared with.
        seeds: In order.
    """
    groups: dict[str, list[str]] = {}
    for cell, counterpart in cells.items():
        name = counterpart if counterpart is not None and counterpart in cells else cell
        groups.setdefault(name, []).append(cell)
    return [(cell, seed) for group in groups.values() for seed in seeds for cell in group]


@dataclass
class TimeBox(Generic[J]):
    """Runs and a deadline; every ``now`` is on the deadline's clock, in seconds.

    What a cell takes is measured: seconds from the end of one epoch to the end of the next, so
    the first epoch of a run, which warms up, is left out; and what its runs take besides.

    Attributes:
        jobs: In the order in which they are to be run.
        deadline: When all work ends.
        trained: Whether any run has trained. Until then a run is started even if it cannot
            finish, so that the same command, repeated, makes progress each time.
    """

    jobs: Sequence[J]
    deadline: float
    trained: bool = False
    _epoch: dict[str, float] = field(default_factory=dict)  # seconds, by cell
    _besides: dict[str, float] = field(default_factory=dict)
    _ends: list[float] = field(default_factory=list)  # of the epochs of the run in progress

    def learn(self, cell: str, epochs: Sequence[float]) -> None:
        """Take over what epochs of a finished run took on this machine, the first one first."""
        self._epoch.setdefault(cell, median(epochs[1:] or epochs))

    def needs(self, job: J) -> float | None:
        """Seconds that the rest of a run is expected to take; None if nothing was measured."""
        if job.cell not in self._epoch:
            return None
        left = (job.epochs - job.done) * self._epoch[job.cell]
        return left + self._besides.get(job.cell, 0.0)

    def next(self, now: float) -> J | None:
        """The run to train next, or None.

        That is the first one that is expected to finish or of which nothing is known. Where there
        is none, one that has begun is continued if another epoch is expected to fit.
        """
        waiting = [job for job in self.jobs if not job.state] if now < self.deadline else []
        fitting = [job for job in waiting if self._may_fit(job, now)]
        begun = [job for job in waiting if job.done and self.epoch_fits(job, now)]
        others = [] if self.trained else waiting  # better a part of a run than nothing
        return next(iter([*fitting, *begun, *others]), None)

    def _may_fit(self, job: J, now: float) -> bool:
        return not job.put_off and now + (self.needs(job) or 0.0) <= self.deadline

    def begin(self, job: J, now: float) -> None:
        """A run begins, or is continued."""
        self._ends = [now]

    def epoch_ended(self, job: J, done: int, now: float) -> bool:
        """Note an epoch; whether to continue, or to put the run off for one that may fit.

        Args:
            job: The run that began last.
            done: Epochs that it has now.
            now: When the epoch ended.
        """
        self.trained = True
        self._ends.append(now)
        job.done = done
        if len(self._ends) > 2:
            self._epoch[job.cell] = median(b - a for a, b in pairwise(self._ends[1:]))
        left = self.needs(job)
        if left is None or job.put_off or self._may_fit(job, now):
            return True
        rest = (other for other in self.jobs if other is not job and not other.state)
        job.put_off = any(self._may_fit(other, now) for other in rest)
        return not job.put_off

    def epoch_fits(self, job: J, now: float) -> bool:
        """Whether another epoch is expected to end before the deadline."""
        last = self._ends[-1] - self._ends[-2] if len(self._ends) > 1 else 0.0
        return now + self._epoch.get(job.cell, last) <= self.deadline

    def end(self, job: J, now: float) -> None:
        """The run that began last ended; its ``state`` says how."""
        epochs = len(self._ends) - 1
        if epochs:
            seconds = now - self._ends[0]
            measured = self._epoch.setdefault(job.cell, seconds / epochs)
            if job.state == "done":
                self._besides[job.cell] = max(0.0, seconds - epochs * measured)
