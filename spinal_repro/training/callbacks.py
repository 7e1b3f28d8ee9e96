"""NaN checks and signals as callbacks; `Checkpoint` and `Progress` have modules of their own."""

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

LOOK_EVERY = 1.0  # seconds between looks at the losses of an epoch, which wait for the device
SHOWN = 8  # images named in a message
SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")  # SIGUSR1 is SLURM's usual warning
ADVICE = (
    "a smaller recipe.lr or runtime.precision=fp32 may help; the same command with "
    "runtime.debug=nonfinite finds the layer"
)


class NonFiniteLossError(UserError):
    """A loss is NaN or Inf."""


class NonFiniteCheck(Callback):
    """Stops the run at a training or evaluation loss that is NaN or Inf, before it is saved."""

    def on_fit_start(self, run: Run) -> None:
        """Start the clock."""
        self._looked = time.monotonic()

    def on_step_end(self, run: Run, step: int, losses: Tensor, num_images: int) -> None:
        """Look at the losses once a second."""
        self._losses = losses
        if time.monotonic() - self._looked >= LOOK_EVERY:
            self._looked = time.monotonic()
            self._check(run, run.state.epoch + 1)

    def on_epoch_end(self, run: Run, is_best: bool) -> None:
        """Check all losses of the epoch."""
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
    """``runtime.debug=nonfinite``: names the first layer, gradient or weight with NaN or Inf.

    Every layer waits for the device, so training is slow; results are the same.
    """

    def on_fit_start(self, run: Run) -> None:
        """Watch the outputs of all layers, gradients before each step and weights after it."""
        self._run, self._step = run, 0
        parameters = dict(run.model.named_parameters())
        layers = [(n, m) for n, m in run.model.named_modules() if not list(m.children())]

        def gradients(*_: Any) -> None:
            for name, parameter in parameters.items():
                self._check(f"the gradient of {name}", parameter.grad)

        def weights(*_: Any) -> None:
            for name, parameter in parameters.items():
                self._check(f"{name} after the optimizer's step", parameter.detach())

        for name, module in layers:
            module.register_forward_hook(partial(self._look, name))
        run.optimizer.register_step_pre_hook(gradients)
        run.optimizer.register_step_post_hook(weights)

    def on_step_end(self, run: Run, step: int, losses: Tensor, num_images: int) -> None:
        """Note the step, 0 at the end of an epoch."""
        self._step = step % len(run.train)

    def _look(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        for value in output if isinstance(output, tuple | list) else (output,):
            self._check(f"the output of {name} ({type(module).__name__})", value)

    def _check(self, what: str, value: Any) -> None:
        if not isinstance(value, Tensor) or bool(torch.isfinite(value).all()):
            return
        bad, epoch = value[~torch.isfinite(value)], self._run.state.epoch + 1
        where = f"step {self._step + 1}" if self._run.model.training else "the evaluation"
        raise NonFiniteLossError(
            f"{what} has {len(bad):,} of {value.numel():,} values that are NaN or Inf, the first "
            f"one {bad[0].item()}, at {where} of epoch {epoch}"
        )


class StopOnSignal(Callback):
    """Context in which SIGINT, SIGTERM and SIGUSR1 set ``run.stop``; a second SIGINT ends at once.

    Outside the main thread, and for signals that the parent process ignores, nothing changes. Of
    nested contexts the outer one hears the signals.

    Attributes:
        received: Name of the first signal; empty before it.
    """

    def __init__(self) -> None:
        self.received, self._before = "", dict[int, Any]()

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
        """Ask the run to stop if a signal came."""
        run.stop = run.stop or self.received

    def on_epoch_end(self, run: Run, is_best: bool) -> None:
        """As after a step."""
        run.stop = run.stop or self.received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt("second SIGINT: stopped at once")
        self.received = signal.Signals(number).name
