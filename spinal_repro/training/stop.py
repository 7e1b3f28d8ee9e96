"""What asks a run to stop, a signal or a deadline: it finishes its step, saves, and says so."""

import atexit
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")  # SIGUSR1 is SLURM's usual warning
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
AT_ONCE = 2.0  # seconds: launchers send a signal to a group and pass it on, a moment later, as well
EARLY = "before there was anything to save"


class Interrupted(KeyboardInterrupt):  # no error: the run goes on another time
    """A run was asked to stop and has saved where it stands."""


class Listener(ABC):
    """Context in which the signals that ask to stop are handled here.

    Outside the main thread, and for signals that the parent process has switched off, nothing
    is changed.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @abstractmethod
    def _handle(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""


class Stop(Listener):
    """Context in which the first signal is noted and one after `AT_ONCE` ends the process.

    As long as there is nothing to save, the first one raises `Interrupted`, wherever the program
    is: also in libraries that swallow it, make another error of it, or fail in clearing up what it
    left half done. So any error that leaves the context after such a signal is `Interrupted`
    again, and no other context begins: one inside another hands on what it was told.

    A deadline only ever stops a run at the next step: it raises nothing by itself.

    Args:
        deadline: When to stop, as `time.monotonic` counts; None for never.
        on_epoch: Called after each epoch with the state of the run; returns the deadline from
            then on.

    Attributes:
        signalled: Name of the first signal; empty as long as there was none.
        deferred: Whether a first signal is only noted, since there is something to save.
    """

    def __init__(
        self,
        deadline: float | None = None,
        on_epoch: Callable[[Any], float | None] | None = None,
    ) -> None:
        super().__init__()
        self.signalled, self.deferred = "", False
        self._deadline, self._on_epoch = deadline, on_epoch
        self._when = 0.0
        self._outer: Stop | None = None

    def __enter__(self) -> Self:
        self._outer = heard()
        return super().__enter__()

    @property
    def asked(self) -> str:
        """Why to stop: the name of the first signal, or the time limit; empty for no reason."""
        late = self._deadline is not None and time.monotonic() > self._deadline
        return self.signalled or ("time limit" if late else "")

    def epoch_ended(self, state: Any) -> None:
        """Call ``on_epoch`` with the state; what it returns is the deadline from now on."""
        if self._on_epoch is not None:
            self._deadline = self._on_epoch(state)

    def check(self, where: str, asked: str | None = None) -> None:
        """Raise if the run is asked to stop.

        Args:
            where: The run stands, in words.
            asked: Why, where another process may have had the signal.

        Raises:
            Interrupted: saying where the run stands.
        """
        asked = self.asked if asked is None else asked
        if asked:
            raise _interrupted(asked, where)

    def meant(self, error: BaseException) -> BaseException:
        """What really ended what is inside: the signal, where other code made an error of it."""
        if self.signalled and not self.deferred and not isinstance(error, KeyboardInterrupt):
            return _interrupted(self.signalled, EARLY)
        return error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, tb)
        if self._outer is not None and self.signalled:
            outer = self._outer
            outer.signalled, outer.deferred = self.signalled, self.deferred
            outer._when = self._when
        if error is not None and (meant := self.meant(error)) is not error:
            raise meant from error

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.signalled:
            self.signalled, self._when = signal.Signals(number).name, time.monotonic()
            if not self.deferred:
                self.check(EARLY)
        elif time.monotonic() - self._when > AT_ONCE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def heard() -> Stop | None:
    """The `Stop` that is in force; to be called before anything that would not know what it knows.

    Raises:
        Interrupted: where it was asked.
    """
    owners = (getattr(signal.getsignal(number), "__self__", None) for number in SIGNALS)
    stop = next((owner for owner in owners if isinstance(owner, Stop)), None)
    if stop is not None:
        stop.check("between two runs" if stop.deferred else EARLY)
    return stop


def listen_for_good() -> None:
    """Be in force for as long as this process lives: what comes after all other contexts is noted.

    Launchers tell a process twice, the second time perhaps while it ends, for which PyTorch needs
    a second. In the last part of that Python listens no more, and signals are ignored.
    """
    stop = Stop()
    stop.deferred = True
    stop.__enter__()
    atexit.register(_ignore)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupted(asked: str, where: str) -> Interrupted:
    return Interrupted(f"{asked}: stopped {where}; the same command continues")
