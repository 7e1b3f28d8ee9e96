"""What a run shows while it trains: a bar on a terminal, one line an epoch elsewhere."""

import logging
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from spinal_repro.text import tell
from spinal_repro.training.loop import State


def clock(seconds: float) -> str:
    """Seconds as ``h:mm:ss`` or ``m:ss``."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


class _LogFile(logging.FileHandler):
    """A log file that a full disk leaves short; the run ends where it cannot write what counts."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Nothing: logging would print a traceback for each line."""

    def close(self) -> None:
        """Close, whether or not the last lines can be written."""
        with suppress(OSError):
            super().close()


class Progress:
    """Context that shows progress and keeps the run's log file.

    Args:
        log_file: Lines are appended here.
        mode: ``bar``, ``lines``, ``none``, or ``auto``: a bar where stderr is a terminal.
        epochs: Epochs of the whole run.
        done: Epochs finished before.
        images: Images an epoch.
        select_on: The split whose accuracy is shown.
    """

    def __init__(
        self, log_file: Path, mode: str, *, epochs: int, done: int, images: int, select_on: str
    ) -> None:
        seen = sys.stderr is not None and sys.stderr.isatty()
        self.mode = mode if mode != "auto" else ("bar" if seen else "lines")
        self._epochs, self._images, self._select_on = epochs, images, select_on
        self._epoch = done + 1
        self._logger = logging.getLogger(f"spinal_repro.run.{log_file.parent}")
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        self._file = _LogFile(log_file)
        self._file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._logger.addHandler(self._file)
        self._bar: tqdm[Any] | None = None
        if self.mode == "bar" and done < epochs:
            self._bar = tqdm(
                total=epochs * images,
                initial=done * images,
                unit=" images",
                unit_scale=True,
                dynamic_ncols=True,
            )
            self._name_epoch()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if error is not None:
            self._logger.error("%s: %s", type(error).__name__, error)
        self._logger.removeHandler(self._file)
        self._file.close()

    def say(self, line: str) -> None:
        """A line for the log file and, unless silent, for standard output."""
        self._logger.info(line)
        if self.mode == "bar":
            with suppress(OSError):
                tqdm.write(line)
        elif self.mode == "lines":
            tell(line)

    def warn(self, line: str) -> None:
        """A line that is always shown, on standard error, and kept in the log file."""
        self._logger.warning(line)
        if self.mode == "bar":
            with suppress(OSError):
                tqdm.write(line, file=sys.stderr)
        else:
            tell(line, error=True)

    def on_batch(self, count: int, running: dict[str, float] | None) -> None:
        """Advance by a batch."""
        if self._bar is None:
            return
        self._bar.update(count)
        if running is not None:
            acc = f"{100 * running['acc']:.2f} %"
            self._bar.set_postfix(loss=f"{running['loss']:.4f}", acc=acc, refresh=False)

    def on_epoch(self, state: State) -> None:
        """Say how an epoch went."""
        entry, timing = state.history[-1], state.timing[-1]
        epochs_left = self._epochs - state.epoch
        left = epochs_left * (timing["train_seconds"] + timing["eval_seconds"])
        line = (
            f"epoch {state.epoch}/{self._epochs}  lr {entry['lr']:.3g}  "
            f"loss {entry['train_loss']:.4f}  train {100 * entry['train_accuracy']:.2f} %  "
            f"{self._select_on} {100 * entry[f'{self._select_on}_accuracy']:.2f} % "
            f"(best in epoch {state.best_epoch})  {timing['images_per_second']:,.0f} images/s "
            f"(data: {100 * timing.get('data_share', 0):.0f} % of the time)  "
            f"{clock(left)} left"
        )
        if self._bar is not None:
            self._logger.info(line)
        else:
            self.say(line)
        self._epoch = state.epoch + 1
        self._name_epoch()

    def _name_epoch(self) -> None:
        if self._bar is not None:
            self._bar.set_description(f"epoch {min(self._epoch, self._epochs)}/{self._epochs}")
