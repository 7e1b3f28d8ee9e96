"""Callbacks for NaN checks, signals and progress; `Checkpoint` has its own module."""

import math
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn
from tqdm import tqdm

from spinal_repro.errors import UserError
from spinal_repro.io import clock, echo
from spinal_repro.records.metrics import TITLES
from spinal_repro.training.engine import Callback, Run

CHECK_INTERVAL = 1.0  # seconds between reads of the losses; each waits for the device
SHOWN = 8  # images named in a message
SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")  # SIGUSR1 is SLURM's usual warning
ADVICE = (
    "try a smaller recipe.lr or runtime.precision=fp32; to find the layer, run the same command "
    "with runtime.debug=nonfinite"
)


class NonFiniteCheck(Callback):
    """Stops the run if a training or evaluation loss is NaN or Inf, before a checkpoint."""

    def on_fit_start(self, run: Run) -> None:
        self._looked = time.monotonic()

    def on_step_end(self, run: Run, step: int, losses: Tensor, num_images: int) -> None:
        self._losses = losses
        if time.monotonic() - self._looked >= CHECK_INTERVAL:
            self._looked = time.monotonic()
            self._check(run, run.state.epoch + 1)

    def on_epoch_end(self, run: Run, is_best: bool) -> None:
        epoch, entry = run.state.epoch, run.state.history[-1]
        self._check(run, epoch)
        for key, value in entry.items():
            if key.endswith("_loss") and not math.isfinite(value):
                raise UserError(f"{key} is {value} after epoch {epoch}; {ADVICE}")

    def _check(self, run: Run, epoch: int) -> None:
        bad = ~torch.isfinite(self._losses)
        if not bad.any():
            return
        step = int(bad.int().argmax()) + 1
        images = run.train.images(run.seed, epoch, step)
        more = ", ..." if len(images) > SHOWN else ""
        raise UserError(
            f"the loss is {self._losses[step - 1].item()} at step {step} of {len(bad)} in epoch "
            f"{epoch} (training images {', '.join(map(str, images[:SHOWN]))}{more}); {ADVICE}"
        )


class NonFiniteHooks(Callback):
    """Names the first layer, gradient or weight with NaN or Inf (``runtime.debug=nonfinite``).

    Training is slow, because every layer synchronises with the device; results do not change.
    """

    def on_fit_start(self, run: Run) -> None:
        self._run, self._step = run, 0

        def gradients(*_: Any) -> None:
            for name, parameter in run.model.named_parameters():
                self._check(f"the gradient of {name}", parameter.grad)

        for name, module in run.model.named_modules():
            if not list(module.children()):
                module.register_forward_hook(partial(self._output, name))
        run.optimizer.register_step_pre_hook(gradients)

    def on_step_end(self, run: Run, step: int, losses: Tensor, num_images: int) -> None:
        for name, parameter in run.model.named_parameters():
            self._check(f"{name} after the optimizer's step", parameter.detach())
        self._step = step % len(run.train)  # steps finished in this epoch

    def _output(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        for value in output if isinstance(output, tuple | list) else (output,):
            self._check(f"the output of {name} ({type(module).__name__})", value)

    def _check(self, what: str, value: Any) -> None:
        if not isinstance(value, Tensor) or bool(torch.isfinite(value).all()):
            return
        bad, run = value[~torch.isfinite(value)], self._run
        epoch = min(run.state.epoch + 1, run.recipe.epochs)  # the final test follows the last one
        where = f"step {self._step + 1} of" if run.model.training else "the evaluation after"
        raise UserError(
            f"{what} has {len(bad):,} NaN or Inf among {value.numel():,} values, first "
            f"{bad[0].item()}, at {where} epoch {epoch}"
        )


class StopOnSignal(Callback):
    """Context in which SIGINT, SIGTERM and SIGUSR1 set ``run.stop``; a second SIGINT ends at once.

    Signals that the parent process ignores stay ignored. In nested contexts the outermost handles
    the signals.
    """

    def __init__(self) -> None:
        self.received = ""  # name of the first signal
        self._before = dict[int, Any]()

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        for number in [getattr(signal, name) for name in SIGNALS if main and hasattr(signal, name)]:
            handler = signal.getsignal(number)
            nested = isinstance(getattr(handler, "__self__", None), StopOnSignal)
            if handler is not signal.SIG_IGN and not nested:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_step_end(self, run: Run, *_: object) -> None:
        run.stop = run.stop or self.received

    def on_epoch_end(self, run: Run, is_best: bool) -> None:
        self.on_step_end(run)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt("second SIGINT: stopped at once")
        self.received = signal.Signals(number).name


class Progress(Callback, AbstractContextManager["Progress"]):
    """Context that shows progress and appends the same lines to a log file.

    ``mode`` is ``bar``, ``lines``, ``none``, or ``auto`` for a bar where stderr is a terminal.
    """

    def __init__(self, log_file: Path, mode: str) -> None:
        if mode == "auto":
            mode = "bar" if sys.stderr is not None and sys.stderr.isatty() else "lines"
        self._path, self._mode = log_file, mode
        self._bar: tqdm[Any] = tqdm(disable=True)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._bar.close()
        if error is not None:
            self._log(f"{type(error).__name__}: {error}")

    def say(self, line: str) -> None:
        """Print a line unless the mode is ``none``, and log it."""
        self._log(line)
        if self._mode == "bar":
            with suppress(OSError):
                tqdm.write(line)
        elif self._mode == "lines":
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
        self._looked = time.monotonic()
        if self._mode == "bar" and run.state.epoch < epochs:
            self._bar = tqdm(
                total=epochs * images,
                initial=run.state.epoch * images,
                unit=" images",
                unit_scale=True,
                dynamic_ncols=True,
                desc=f"epoch {run.state.epoch + 1}/{epochs}",
            )

    def on_step_end(self, run: Run, step: int, losses: Tensor, num_images: int) -> None:
        if self._bar.disable:
            return
        if time.monotonic() - self._looked >= CHECK_INTERVAL:
            self._looked = time.monotonic()
            loss = losses.sum().item() / min(step * run.train.batch_size, run.train.num_images)
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self._bar.update(num_images)

    def on_epoch_end(self, run: Run, is_best: bool) -> None:
        if run.steps.note:
            self.warn(run.steps.note)
            run.steps.note = ""
        state, epochs, on = run.state, run.recipe.epochs, run.select_on
        entry, timing = state.history[-1], state.timing[-1]
        metric, by = run.select_metric, ""
        if metric != "accuracy":
            by = f"{TITLES[metric]} {entry[f'{on}_{metric}']:.4f} "
        left = (epochs - state.epoch) * (timing["train_seconds"] + timing["eval_seconds"])
        line = (
            f"epoch {state.epoch}/{epochs}  lr {entry['lr']:.3g}  "
            f"loss {entry['train_loss']:.4f}  train {100 * entry['train_accuracy']:.2f} %  "
            f"{on} {100 * entry[f'{on}_accuracy']:.2f} % {by}(best in epoch {state.best_epoch})  "
            f"{timing['images_per_second']:,.0f} images/s "
            f"(data: {100 * timing['data_share']:.0f} % of the time)  {clock(left)} left"
        )
        if self._mode == "bar":
            self._log(line)
        else:
            self.say(line)
        self._bar.set_description(f"epoch {min(state.epoch + 1, epochs)}/{epochs}")
