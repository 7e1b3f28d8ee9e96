"""Callbacks for NaN checks and signals; `Checkpoint` and `Progress` have their own modules."""

import math
import signal
import threading
import time
from functools import partial
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn

from spinal_repro.errors import UserError
from spinal_repro.training.engine import Callback, Run

CHECK_INTERVAL = 1.0  # seconds between reads of the losses; each synchronises with the device
SHOWN = 8  # images named in a message
SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")  # SIGUSR1 is SLURM's usual warning
ADVICE = (
    "try a smaller recipe.lr or runtime.precision=fp32; to find the layer, run the same command "
    "with runtime.debug=nonfinite"
)


class NonFiniteLossError(UserError):
    """A loss is NaN or Inf."""


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
                raise NonFiniteLossError(f"{key} is {value} after epoch {epoch}; {ADVICE}")

    def _check(self, run: Run, epoch: int) -> None:
        bad = ~torch.isfinite(self._losses)
        if not bad.any():
            return
        step = int(bad.int().argmax()) + 1
        images = run.train.images(run.seed, epoch, step)
        more = ", ..." if len(images) > SHOWN else ""
        raise NonFiniteLossError(
            f"the loss is {self._losses[step - 1].item()} at step {step} of {len(bad)} in epoch "
            f"{epoch} (training images {', '.join(map(str, images[:SHOWN]))}{more}); {ADVICE}"
        )


class NonFiniteHooks(Callback):
    """Names the first layer, gradient or weight with NaN or Inf (``runtime.debug=nonfinite``).

    Training is slow, because every layer synchronises with the device; results do not change.
    """

    def on_fit_start(self, run: Run) -> None:
        self._run, self._step = run, 0
        parameters = dict(run.model.named_parameters())

        def gradients(*_: Any) -> None:
            for name, parameter in parameters.items():
                self._check(f"the gradient of {name}", parameter.grad)

        def weights(*_: Any) -> None:
            for name, parameter in parameters.items():
                self._check(f"{name} after the optimizer's step", parameter.detach())

        for name, module in run.model.named_modules():
            if not list(module.children()):
                module.register_forward_hook(partial(self._output, name))
        run.optimizer.register_step_pre_hook(gradients)
        run.optimizer.register_step_post_hook(weights)

    def on_step_end(self, run: Run, step: int, losses: Tensor, num_images: int) -> None:
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
        raise NonFiniteLossError(
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
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
            for number in numbers:
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
