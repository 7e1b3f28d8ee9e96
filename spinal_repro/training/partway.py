"""Where a run stands inside an epoch, so that it can be left between any two steps."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

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

    def mark(self, step: int, began: float, waited: float) -> None:
        """Note that ``step`` steps are done.

        Args:
            step: Steps since the epoch began.
            began: When it would have begun without interruption, by ``time.perf_counter``.
            waited: Seconds spent on making or waiting for batches.
        """
        self.step, self.waited = step, waited
        self.seconds = max(time.perf_counter() - began, 1e-9)  # a rate is computed of it
        device = self.losses.device
        self.random = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            self.random["cuda"] = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            self.random["mps"] = torch.mps.get_rng_state()


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
