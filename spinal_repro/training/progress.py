"""Progress display of a run: a bar on a terminal, else one line per epoch; and a log file."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from torch import Tensor
from tqdm import tqdm

from spinal_repro.io import clock, echo
from spinal_repro.training.callbacks import CHECK_INTERVAL
from spinal_repro.training.engine import Callback, Run


class Progress(Callback):
    """Context that shows progress and appends the same lines to a log file.

    Args:
        log_file: Created if missing.
        mode: ``bar``, ``lines``, ``none``, or ``auto`` for a bar where stderr is a terminal.
    """

    def __init__(self, log_file: Path, mode: str) -> None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self.mode = mode if mode != "auto" else ("bar" if terminal else "lines")
        self._path = log_file
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if error is not None:
            self._log(f"{type(error).__name__}: {error}")

    def say(self, line: str) -> None:
        """Print a line unless the mode is ``none``, and log it."""
        self._log(line)
        if self.mode == "bar":
            with suppress(OSError):
                tqdm.write(line)
        elif self.mode == "lines":
            echo(line)

    def warn(self, line: str) -> None:
        """Print a line to standard error in any mode, and log it."""
        self._log(line)
        echo(line, error=True)

    def _log(self, line: str) -> None:
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:  # a full disk
            file.write(f"{time.strftime('%F %T')} {line}\n")

    def on_fit_start(self, run: Run) -> None:
        epochs, images = run.recipe.epochs, run.train.num_images
        self._looked, self._seen = time.monotonic(), 0
        if self.mode == "bar" and run.state.epoch < epochs:
            self._bar = tqdm(
                total=epochs * images,
                initial=run.state.epoch * images,
                unit=" images",
                unit_scale=True,
                dynamic_ncols=True,
                desc=f"epoch {run.state.epoch + 1}/{epochs}",
            )

    def on_step_end(self, run: Run, step: int, losses: Tensor, num_images: int) -> None:
        if self._bar is None:
            return
        self._seen += num_images
        if time.monotonic() - self._looked >= CHECK_INTERVAL:
            self._looked = time.monotonic()
            loss = losses.sum().item() / self._seen
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self._bar.update(num_images)

    def on_epoch_end(self, run: Run, is_best: bool) -> None:
        state, epochs, on = run.state, run.recipe.epochs, run.select_on
        entry, timing = state.history[-1], state.timing[-1]
        left = (epochs - state.epoch) * (timing["train_seconds"] + timing["eval_seconds"])
        line = (
            f"epoch {state.epoch}/{epochs}  lr {entry['lr']:.3g}  "
            f"loss {entry['train_loss']:.4f}  train {100 * entry['train_accuracy']:.2f} %  "
            f"{on} {100 * entry[f'{on}_accuracy']:.2f} % (best in epoch {state.best_epoch})  "
            f"{timing['images_per_second']:,.0f} images/s "
            f"(data: {100 * timing['data_share']:.0f} % of the time)  {clock(left)} left"
        )
        if self._bar is None:
            self.say(line)
            return
        self._log(line)
        self._seen = 0
        self._bar.set_description(f"epoch {min(state.epoch + 1, epochs)}/{epochs}")
