"""Where a run stands inside an epoch, so that it can be left between any two steps."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spinal_repro.data.loader import Batch


@dataclass
class Partway:
    """What has been summed up in an epoch so far, and the random numbers that come next.

    Order and augmentation of an epoch are drawn from its seeds; what dropout draws comes from
    PyTorch's own generators, whose state is kept here.

    Attributes:
        losses: Loss of each batch, summed over its images ``[steps of the epoch]``.
        correct: Images right so far, ``[]``.
        step: Steps done.
        random: State of the generators after that step, by device type.
        seconds: Of training in this epoch, in all sittings.
        waited: Those of them spent on making or waiting for batches.
    """

    losses: Tensor
    correct: Tensor
    step: int = 0
    random: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    waited: float = 0.0

    @classmethod
    def of(cls, steps: int, device: torch.device) -> "Partway":
        """The beginning of an epoch."""
        correct = torch.zeros((), dtype=torch.int64, device=device)
        return cls(torch.zeros(steps, device=device), correct)

    def restore(self, device: torch.device) -> None:
        """Bring tensors to the device, and the generators to where they were."""
        self.losses, self.correct = self.losses.to(device), self.correct.to(device)
        for kind, state in self.random.items():
            if kind == "cpu":
                torch.set_rng_state(state)
            elif kind == "cuda":
                torch.cuda.set_rng_state(state, device)
            elif kind == "mps":
                torch.mps.set_rng_state(state)

    def mark(self, step: int, seconds: float, waited: float) -> None:
        """Note that ``step`` steps are done.

        Args:
            step: Steps since the epoch began.
            seconds: Of training in this epoch so far.
            waited: Seconds spent on making or waiting for batches.
        """
        self.step, self.waited = step, waited
        self.seconds = max(seconds, 1e-9)  # a rate is computed of it
        device = self.losses.device
        self.random = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            self.random["cuda"] = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            self.random["mps"] = torch.mps.get_rng_state()


class Clock:
    """Takes times without waiting for the device: on CUDA as events that it passes.

    Args:
        device: Whose work is timed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> Any:
        """The moment when all work asked for so far is done."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            return event
        if self._device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def seconds(self, first: Any, last: Any) -> float:
        """Seconds from one moment to a later one; on CUDA both must have been reached."""
        if self._device.type == "cuda":
            return float(first.elapsed_time(last)) / 1000
        return float(last - first)


class Timed:
    """Batches, and the seconds that asking for them took.

    Args:
        stream: The batches.
        seconds: What asking for earlier ones of the same epoch took.
    """

    def __init__(self, stream: Iterator[Batch], seconds: float = 0.0) -> None:
        self._stream, self.seconds = stream, seconds

    def __iter__(self) -> "Timed":
        return self

    def __next__(self) -> Batch:
        asked = time.perf_counter()
        try:
            return next(self._stream)
        finally:
            self.seconds += time.perf_counter() - asked
